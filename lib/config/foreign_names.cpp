// The table of foreign names. A line is: names, our key or section (or none), a note. The note is a
// whole sentence, or empty.
#include "config/foreign_names.h"

#include "config/foreign_lines.h"

namespace tptrain::config {
namespace {

using foreign::Line;
using foreign::Lines;

const Lines& names_of_files() {
  static const Lines kLines = {
      {{"output_dir", "logging_dir", "save", "checkpoint.folder", "job.dump_folder", "dump_folder"},
       "run_dir",
       "Everything that a run writes stands there."},
      {{"job", "run_name", "experiment_name", "job_name", "job.description"},
       "run_dir",
       "A run has no other name than its directory."},
      {{"overwrite_output_dir"},
       "",
       "A run goes on from the newest checkpoint of its run_dir; name another run_dir to begin "
       "anew."},
      {{"model_name_or_path", "model_name", "base_model", "pretrained_model_name_or_path",
        "model_id", "model.name", "model.flavor", "model.hf_assets_path", "hf_checkpoint",
        "checkpoint.initial_load_path", "pretrained_checkpoint"},
       "model.path",
       "It is the directory of a model: `tptrain fetch OWNER/NAME` makes one."},
      {{"tokenizer_name", "tokenizer_name_or_path", "tokenizer_path", "tokenizer_model",
        "tokenizer_type", "model.tokenizer_path", "vocab_file", "merge_file"},
       "data.tokenizer",
       "It is a directory or a file; left out, the tokenizer is the model's own."},
      {{"train_file", "train_files", "dataset", "datasets", "dataset_name", "dataset_path",
        "data_path", "train_data_path", "dataset_dir", "pretraining_dataset"},
       "data.train",
       "It is a list of files, folders and globs."},
      {{"validation_file", "eval_file", "val_data_path", "valid_data_path", "eval_dataset",
        "test_datasets", "test_file"},
       "data.eval",
       "It is a list of files, folders and globs."},
      {{"val_set_size", "validation_split_percentage", "validation_split", "val_size", "split",
        "eval_split"},
       "data.eval_share",
       "It is a share of the documents: 1%."},
      {{"dataset_text_field", "text_column", "text_field", "json_keys"}, "data.text_key", ""},
      {{"push_to_hub", "hub_model_id", "hub_strategy", "hub_token"},
       "",
       "Not built: `tptrain export` writes a directory that `hf upload` takes."},
      {{"report_to", "wandb", "use_wandb", "wandb_project", "wandb_entity", "wandb_run_id",
        "enable_wandb", "mlflow", "mlflow_tracking_uri", "comet_api_key"},
       "",
       "Not built: run_dir/metrics.jsonl and run_dir/tensorboard hold every value; docs/metrics.md "
       "says how trackers read them."},
      {{"tensorboard", "enable_tensorboard", "tensorboard_dir", "save_tb_folder"},
       "logging.tensorboard",
       "Event files go to run_dir/tensorboard."},
  };
  return kLines;
}

const Lines& names_of_batches() {
  static const Lines kLines = {
      {{"training"}, "train", ""},
      {{"per_device_train_batch_size", "per_gpu_train_batch_size", "train_micro_batch_size_per_gpu",
        "micro_batch_size_per_gpu", "local_batch_size"},
       "train.micro_batch_size",
       "It counts sequences per dp rank."},
      {{"train_batch_size", "total_batch_size"},
       "train.global_batch_size",
       "It counts the sequences of a step over all ranks."},
      {{"per_device_eval_batch_size", "per_gpu_eval_batch_size", "eval_batch_size"},
       "train.micro_batch_size",
       "Evaluation takes the same."},
      {{"auto_find_batch_size"},
       "train.micro_batch_size",
       "`tptrain plan --config FILE --gpu-memory GIB` says which one fits."},
      {{"gradient_accumulation_steps", "gradient_accumulation", "accumulate_grad_batches"},
       "train.grad_accum_steps",
       "Or give train.global_batch_size, and it follows."},
      {{"rampup_batch_size"}, "", "Not built: the batch has one size from the first step on."},
      {{"num_train_epochs", "num_epochs", "epochs", "train_epochs", "max_epochs"},
       "train.epochs",
       ""},
      {{"train_iters", "training_steps", "training.steps", "total_steps", "train_steps",
        "num_train_steps", "max_train_steps"},
       "train.max_steps",
       ""},
      {{"train_samples", "max_train_samples"},
       "train.max_steps",
       "It counts steps, each of train.global_batch_size sequences."},
      {{"max_seq_length", "max_seq_len", "sequence_len", "sequence_length", "seq_len", "max_length",
        "block_size", "cutoff_len", "context_length", "model_max_length"},
       "train.seq_length",
       ""},
      {{"sample_packing", "pack_sequences", "pad_to_sequence_len", "group_by_length",
        "dataset_packing", "eval_sample_packing"},
       "data.packing",
       "best_fit puts whole documents together; data.document_mask keeps them apart."},
      {{"data_seed", "random_seed"}, "train.seed", "One seed serves everything that is drawn."},
      {{"dataloader_num_workers", "num_workers", "dataset_num_proc", "dataset_processes",
        "preprocessing_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor",
        "dataloader_drop_last", "remove_unused_columns"},
       "",
       "Not needed: files are tokenized once, on all cores, and read where they lie."},
      {{"train_on_inputs", "roles_to_train", "completion_only_loss", "assistant_only_loss"},
       "data.train_on",
       "assistant (the default) learns what the assistant says, last its last answer, all every "
       "token."},
      {{"train_on_eos", "train_on_eot"},
       "data.train_on_end",
       "It is true or false: whether the token that closes an answer is learned."},
      {{"chat_template", "chat_template_path", "conversation_template"},
       "data.chat_template",
       "It names a file; without it the tokenizer's template is taken."},
  };
  return kLines;
}

const Lines& names_of_updates() {
  static const Lines kLines = {
      {{"optim", "optimizer_type", "optimizer_name", "optimizer.name"}, "optimizer.type", ""},
      {{"lr", "max_lr", "base_lr", "peak_lr", "peak_learning_rate"}, "optimizer.learning_rate", ""},
      {{"adam_beta1", "adam_beta2", "beta1", "beta2", "adam_betas"},
       "optimizer.betas",
       "It is a list of two: [0.9, 0.95]."},
      {{"muon_momentum", "muon_beta"}, "optimizer.muon.momentum", ""},
      {{"muon_nesterov"}, "optimizer.muon.nesterov", ""},
      {{"ns_steps", "muon_num_ns_steps", "newton_schulz_steps", "muon_ns_steps"},
       "optimizer.muon.steps",
       ""},
      {{"adam_epsilon", "adam_eps", "epsilon", "optimizer_eps"}, "optimizer.eps", ""},
      {{"max_norm", "clip_grad", "gradient_clipping", "gradient_clip_val", "grad_clip",
        "clip_grad_norm", "gradient_clip"},
       "optimizer.max_grad_norm",
       ""},
      {{"no_weight_decay", "no_decay", "weight_decay_exclude"},
       "optimizer.groups",
       "Norms and biases do not decay anyway."},
      {{"freeze_layers", "unfrozen_parameters", "frozen_parameters"},
       "model.freeze",
       "It is a list of globs over the tensors' names."},
      {{"lr_scheduler", "lr_scheduler_config"}, "scheduler", ""},
      {{"lr_scheduler_type", "lr_decay_style", "lr_decay_type", "scheduler_type", "scheduler_name",
        "lr_scheduler.decay_type", "lr_scheduler.type"},
       "scheduler.type",
       ""},
      {{"warmup_ratio", "lr_warmup_fraction", "warmup_proportion"},
       "scheduler.warmup_steps",
       "It counts steps: the ratio x train.max_steps."},
      {{"num_warmup_steps", "lr_warmup_iters", "lr_warmup_steps", "warmup_iters",
        "warmup_num_steps", "warmup"},
       "scheduler.warmup_steps",
       ""},
      {{"warmup_min_lr", "lr_warmup_init"}, "", "Not built: the warm-up rises from 0."},
      {{"lr_min", "min_learning_rate", "end_lr", "lr_end"}, "scheduler.min_lr", ""},
      {{"min_lr_ratio", "min_lr_factor", "lr_scheduler.min_lr_factor", "min_lr_rate"},
       "scheduler.min_lr",
       "It is a learning rate itself: the ratio x optimizer.learning_rate."},
      {{"lr_wsd_decay_iters", "decay_ratio", "lr_scheduler.decay_ratio", "num_decay_steps"},
       "scheduler.decay_steps",
       "It counts steps and goes with scheduler.type wsd."},
      {{"lr_decay_iters", "lr_decay_steps", "lr_decay_samples"},
       "train.max_steps",
       "The learning rate falls until there."},
      {{"label_smoothing", "label_smoothing_factor", "neftune_noise_alpha", "ema", "use_ema"},
       "",
       "Not built."},
      {{"use_mup", "mup"}, "", "Not built."},
  };
  return kLines;
}

const Lines& names_of_saves() {
  static const Lines kLines = {
      {{"save_interval", "save_every", "checkpoint_interval", "save_freq", "checkpoint.interval",
        "checkpoint.every_steps", "save_strategy", "saves_per_epoch", "save_every_n_steps"},
       "checkpoint.save_steps",
       "It counts steps, save_epochs passes over the data; the last step is saved in any case."},
      {{"save_total_limit", "keep_latest_k", "keep_last", "keep_last_n", "max_checkpoints"},
       "checkpoint.keep",
       ""},
      {{"save_only_model", "save_safetensors", "last_save_model_only", "save_16bit_model",
        "stage3_gather_16bit_weights_on_model_save"},
       "",
       "Not needed: checkpoints hold everything, and `tptrain export` writes the model alone."},
      {{"async_save", "async_mode", "checkpoint.async_mode"},
       "checkpoint.async",
       "It is true or false; true (the default) writes beside the steps."},
      {{"resume_from_checkpoint", "auto_resume_from_checkpoints", "resume_from", "load",
        "load_checkpoint", "load_step", "checkpoint.load_step"},
       "checkpoint.resume",
       "A run goes on from its newest checkpoint by itself."},
      {{"load_best_model_at_end", "metric_for_best_model", "greater_is_better", "keep_best",
        "save_best_model", "save_top_k"},
       "checkpoint.keep_best",
       "`eval_loss` keeps the checkpoint of the lowest loss on data.eval, called RUN_DIR/best."},
      {{"keep_every_n_steps", "keep_period", "save_retain_interval"}, "checkpoint.keep_every", ""},
      {{"early_stopping_patience", "early_stopping", "patience", "early_stopping_threshold"},
       "eval.patience",
       "It counts evaluations."},
      {{"validation"}, "eval", "Its files are data.eval."},
      {{"eval_steps", "eval_interval", "evals_per_epoch", "eval_every", "eval_strategy",
        "evaluation_strategy", "eval_frequency", "val_check_interval", "validation.freq",
        "do_eval"},
       "eval.every_steps",
       "It counts steps, every_epochs passes over the data; the files are data.eval."},
      {{"eval_iters", "limit_val_batches", "max_eval_samples", "validation.steps",
        "eval_max_batches"},
       "eval.max_batches",
       "It counts global batches."},
      {{"metrics"}, "logging", ""},
      {{"logging_steps", "log_interval", "log_freq", "logging_interval", "log_every_n_steps",
        "steps_per_print", "metrics.log_freq", "print_freq"},
       "logging.every_steps",
       ""},
      {{"logging_strategy", "logging_first_step", "log_level", "disable_tqdm", "do_train",
        "prediction_loss_only", "include_tokens_per_second"},
       "",
       "Not needed."},
  };
  return kLines;
}

const Lines& names_of_models() {
  static const Lines kLines = {
      {{"num_layers", "n_layer", "n_layers", "num_hidden_layer"},
       "model.architecture.num_hidden_layers",
       ""},
      {{"n_head", "n_heads", "num_heads", "attention_heads"},
       "model.architecture.num_attention_heads",
       ""},
      {{"num_query_groups", "num_kv_heads", "n_kv_heads"},
       "model.architecture.num_key_value_heads",
       ""},
      {{"n_embd", "dim", "d_model", "embed_dim"}, "model.architecture.hidden_size", ""},
      {{"ffn_hidden_size", "n_inner", "ffn_dim", "d_ff", "ffn_dim_multiplier"},
       "model.architecture.intermediate_size",
       "It is the width itself."},
      {{"kv_channels"}, "model.architecture.head_dim", ""},
      {{"n_positions", "n_ctx"}, "model.architecture.max_position_embeddings", ""},
      {{"norm_epsilon", "norm_eps", "layer_norm_epsilon", "layernorm_epsilon"},
       "model.architecture.rms_norm_eps",
       ""},
      {{"rotary_base", "rope_base"}, "model.architecture.rope_theta", ""},
      {{"untie_embeddings_and_output_weights", "tie_embeddings", "weight_tying"},
       "model.architecture.tie_word_embeddings",
       ""},
      {{"init_method_std", "init_std"}, "model.architecture.initializer_range", ""},
      {{"padded_vocab_size", "make_vocab_size_divisible_by"},
       "model.architecture.vocab_size",
       "It need not be a multiple of anything."},
      {{"hidden_act", "swiglu", "activation_function", "position_embedding_type", "normalization"},
       "model.architecture.model_type",
       "The family says it."},
      {{"lora", "peft", "use_peft", "peft_config", "lora_config", "peft_type", "use_lora"},
       "adapter",
       "It is a section: docs/lora.md."},
      {{"lora_r", "lora_rank", "lora_dim", "adapter.r", "adapter.dim"}, "adapter.rank", ""},
      {{"lora_alpha", "adapter.lora_alpha"}, "adapter.alpha", ""},
      {{"lora_dropout", "adapter.lora_dropout"}, "adapter.dropout", ""},
      {{"lora_target_modules", "target_modules", "lora_target", "lora_target_linear",
        "adapter.target_modules"},
       "adapter.targets",
       "A list of linears, or all-linear."},
      {{"use_rslora", "peft_use_rslora", "adapter.use_rslora"}, "adapter.rslora", ""},
      {{"lora_modules_to_save", "modules_to_save", "additional_target"},
       "adapter.modules_to_save",
       ""},
      {{"use_dora", "peft_use_dora", "loraplus_lr_ratio", "peft_layers_to_transform"},
       "",
       "Not built in this form: docs/lora.md says what is, and how optimizer.groups gives A and B "
       "rates of their own."},
      {{"load_in_4bit", "qlora", "bnb_4bit_quant_type", "quantization_bit"},
       "adapter.base_dtype",
       "nf4 is that of QLoRA, with double quantisation."},
      {{"load_in_8bit", "quantization", "quantization_config"},
       "",
       "Quantized weights are not built but as the base of an adapter: adapter.base_dtype."},
      {{"rl", "dpo_beta", "reward_model", "kto"}, "", "Preference training is not built."},
  };
  return kLines;
}

}  // namespace

const std::map<std::string, Meaning>& foreign_names() {
  static const std::map<std::string, Meaning> kNames = [] {
    std::map<std::string, Meaning> names;
    for (const Lines* lines :
         {&names_of_files(), &names_of_batches(), &names_of_updates(), &foreign::names_of_numbers(),
          &foreign::names_of_layouts(), &names_of_saves(), &names_of_models()}) {
      for (const Line& line : *lines) {
        for (const char* name : line.names) names[name] = {line.path, line.note};
      }
    }
    return names;
  }();
  return kNames;
}

}  // namespace tptrain::config
