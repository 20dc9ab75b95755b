// The table of foreign names. A line is: names, our key or section (or none), a note. The note is a
// whole sentence, or empty.
#include "config/foreign_names.h"

namespace tptrain::config {
namespace {

struct Line {
  std::vector<const char*> names;
  const char* path;
  const char* note;
};

using Lines = std::vector<Line>;

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
       "It is the directory of a model: `hf download NAME --local-dir DIR` makes one."},
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
       "data.eval",
       "No share of the training data is split off: name files of their own."},
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
       "train.max_steps",
       "Epochs are not built: give the steps, sequences of the data x epochs / "
       "train.global_batch_size; the line `data:` of the log says how many sequences there are."},
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

const Lines& names_of_numbers() {
  static const Lines kLines = {
      {{"bf16", "bfloat16", "bf16.enabled", "mixed_precision", "mixed_precision_param", "precision",
        "torch_dtype", "params_dtype", "half_precision", "bf16_full_eval"},
       "train.dtype",
       "`bf16: true` elsewhere is `dtype: bf16` here."},
      {{"fp16", "float16", "fp16.enabled", "half", "fp16_full_eval", "fp16_backend", "loss_scale",
        "initial_loss_scale"},
       "train.dtype",
       "fp16 and its loss scale are not built: bf16 takes its place."},
      {{"tf32", "allow_tf32"},
       "train.dtype",
       "TF32 is not built: bf16 is the faster type, fp32 is computed as such."},
      {{"fp8", "float8", "fp8_format", "fp8_recipe", "fp8.enabled", "quantize"},
       "train.fp8",
       "It is on or off, and goes with train.dtype bf16."},
      {{"mx"}, "train.fp8", "MX formats are not built: a tensor has one scale."},
      {{"exit_duration_in_mins", "max_run_time", "time_limit"},
       "train.max_time",
       "Such as 90m or 4h."},
      {{"grad_reduce_in_fp32", "communication_data_type", "mixed_precision_reduce",
        "gradient_reduce_dtype", "accumulate_allreduce_grads_in_fp32"},
       "parallel.reduce_dtype",
       "Gradients add up in fp32 in any case."},
      {{"gradient_checkpointing", "activation_checkpointing", "activation_checkpoint",
        "activation_checkpoint.mode", "use_gradient_checkpointing", "recompute_activations",
        "recompute_granularity", "recompute_method", "recompute_num_layers"},
       "parallel.recompute",
       "`gradient_checkpointing: true` elsewhere is `recompute: full` here."},
      {{"hidden_dropout", "hidden_dropout_prob", "resid_pdrop", "dropout"},
       "train.residual_dropout",
       ""},
      {{"attn_pdrop", "attention_dropout_prob"}, "train.attention_dropout", ""},
      {{"z_loss_coeff", "moe_z_loss_coeff", "lm_head_z_loss"}, "train.z_loss", ""},
      {{"use_cpu", "no_cuda", "use_mps", "device_map", "device_type"},
       "train.device",
       "It is auto, cuda or cpu."},
      {{"full_determinism", "deterministic_mode", "use_deterministic_algorithms"},
       "train.deterministic",
       ""},
      {{"ddp_timeout", "nccl_timeout", "distributed_timeout_minutes", "init_timeout_seconds",
        "train_timeout_seconds"},
       "train.hang_timeout_s",
       "It counts seconds."},
      {{"flash_attention", "attn_implementation", "use_flash_attn", "flash_attn", "sdp_attention",
        "xformers_attention", "attention_backend"},
       "",
       "Not needed: attention is fused; the log says which one the GPU runs."},
      {{"torch_compile", "compile", "torch_compile_backend", "liger_kernel", "use_liger_kernel",
        "fused_kernels"},
       "",
       "Not needed: the kernels are fused already; train.cuda_graphs says how steps are issued."},
      {{"profiling", "enable_profiling", "profile", "wall_clock_breakdown"},
       "",
       "Not built: Nsight Systems sees the run from outside, `nsys profile mpirun ...`."},
  };
  return kLines;
}

const Lines& names_of_layouts() {
  static const Lines kLines = {
      {{"parallelism"}, "parallel", ""},
      {{"tensor_parallel_size", "tensor_model_parallel_size", "tensor_parallel_degree",
        "autotp_size", "tensor_parallel", "tp_degree", "tp"},
       "parallel.tp_size",
       ""},
      {{"data_parallel_size", "data_parallel_degree", "data_parallel_replicate_degree", "dp_degree",
        "dp_replicate", "dp", "ddp"},
       "parallel.dp_size",
       "Left out, it is the number of ranks / tp_size."},
      {{"deepspeed", "zero_optimization", "zero_optimization.stage", "fsdp", "fsdp_config",
        "use_distributed_optimizer", "data_parallel_shard_degree",
        "data_parallel_sharding_strategy", "dp_shard"},
       "parallel.zero_stage",
       "It is 0, 1, 2 or 3; FSDP is 3."},
      {{"pp", "pp_size", "pp_degree", "pipeline_parallel_size", "pipeline_model_parallel_size",
        "pipeline_parallel_degree", "pipeline_stages", "num_stages", "pipeline_parallel_schedule"},
       "",
       "Pipeline parallelism is not built: parallel.tp_size and parallel.zero_stage 3 cut a model "
       "that one GPU cannot hold."},
      {{"cp", "cp_size", "cp_degree", "context_parallel_size", "context_parallel_degree", "sp_size",
        "sp_degree", "ulysses_size", "sequence_parallel_size", "sequence_parallel_degree",
        "ring_attention"},
       "",
       "Context parallelism is not built: parallel.sequence_parallel cuts what lies outside "
       "attention over the tp ranks."},
      {{"ep", "ep_size", "ep_degree", "expert_parallel_size", "expert_model_parallel_size",
        "expert_parallel_degree", "num_experts"},
       "",
       "Mixtures of experts are not built."},
      {{"etp_size", "vp_size", "num_layers_per_virtual_pipeline_stage"}, "", "Not built."},
      {{"offload_optimizer", "offload_param", "cpu_offload", "fsdp_offload_params",
        "optimizer_cpu_offload"},
       "parallel.zero_stage",
       "Offloading to the host is not built: a higher stage takes less memory."},
      {{"overlap_comm", "overlap_grad_reduce", "overlap_param_gather"},
       "parallel.dp_overlap",
       "auto overlaps."},
      {{"tp_comm_overlap", "async_tensor_parallel", "enable_async_tensor_parallel"},
       "parallel.tp_overlap",
       "auto overlaps."},
      {{"contiguous_gradients", "reduce_bucket_size", "allgather_bucket_size",
        "allgather_partitions", "reduce_scatter", "stage3_prefetch_bucket_size", "ddp_bucket_size",
        "round_robin_gradients", "zero_allow_untested_optimizer"},
       "",
       "Not needed: the buckets are one a block."},
      {{"nproc_per_node", "num_gpus", "n_gpus", "num_processes", "world_size", "nnodes"},
       "",
       "mpirun -n N (or srun) says how many ranks there are."},
      {{"local_rank", "ddp_backend", "ddp_find_unused_parameters", "distributed_backend",
        "master_addr", "master_port"},
       "",
       "Not needed: MPI starts and connects the ranks."},
  };
  return kLines;
}

const Lines& names_of_saves() {
  static const Lines kLines = {
      {{"save_interval", "save_every", "checkpoint_interval", "save_freq", "checkpoint.interval",
        "checkpoint.every_steps", "save_strategy", "saves_per_epoch", "save_every_n_steps"},
       "checkpoint.save_steps",
       "It counts steps; the last step is saved in any case."},
      {{"save_total_limit", "keep_latest_k", "keep_last", "keep_last_n", "max_checkpoints"},
       "checkpoint.keep",
       ""},
      {{"save_only_model", "save_safetensors", "last_save_model_only", "save_16bit_model",
        "stage3_gather_16bit_weights_on_model_save"},
       "",
       "Not needed: checkpoints hold everything, and `tptrain export` writes the model alone."},
      {{"async_save", "async_mode", "checkpoint.async_mode"},
       "",
       "Not built: a save blocks the step."},
      {{"resume_from_checkpoint", "auto_resume_from_checkpoints", "resume_from", "load",
        "load_checkpoint", "load_step", "checkpoint.load_step"},
       "checkpoint.resume",
       "A run goes on from its newest checkpoint by itself."},
      {{"load_best_model_at_end", "metric_for_best_model", "greater_is_better", "keep_best"},
       "",
       "Not built: checkpoint.keep says how many of the newest ones stay, 0 keeps all."},
      {{"early_stopping_patience", "early_stopping", "patience", "early_stopping_threshold"},
       "eval.patience",
       "It counts evaluations."},
      {{"validation"}, "eval", "Its files are data.eval."},
      {{"eval_steps", "eval_interval", "evals_per_epoch", "eval_every", "eval_strategy",
        "evaluation_strategy", "eval_frequency", "val_check_interval", "validation.freq",
        "do_eval"},
       "eval.every_steps",
       "It counts steps; the files are data.eval."},
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
      {{"adapter", "lora", "lora_r", "lora_rank", "lora_alpha", "lora_dropout",
        "lora_target_modules", "lora_target_linear", "peft", "use_peft", "peft_type",
        "peft_config"},
       "",
       "Adapters are not built: all parameters train."},
      {{"load_in_4bit", "load_in_8bit", "quantization", "quantization_config", "quantization_bit"},
       "",
       "Quantized weights are not built."},
      {{"rl", "dpo_beta", "reward_model", "kto"}, "", "Preference training is not built."},
  };
  return kLines;
}

}  // namespace

const std::map<std::string, Meaning>& foreign_names() {
  static const std::map<std::string, Meaning> kNames = [] {
    std::map<std::string, Meaning> names;
    for (const Lines* lines :
         {&names_of_files(), &names_of_batches(), &names_of_updates(), &names_of_numbers(),
          &names_of_layouts(), &names_of_saves(), &names_of_models()}) {
      for (const Line& line : *lines) {
        for (const char* name : line.names) names[name] = {line.path, line.note};
      }
    }
    return names;
  }();
  return kNames;
}

}  // namespace tptrain::config
