// The keys of adapter.
#include "config/key_binding.h"

namespace tptrain::config {

std::vector<Key> adapter_keys() {
  using A = AdapterConfig;
  return {
      bind({.path = "adapter.type",
            .doc = "`lora` (Hu et al., 2021): y = x W^T + alpha / rank (x A^T) B^T, of which A and "
                   "B train; A begins random, from train.seed, and B at zero."},
           &A::type),
      bind({.path = "adapter.rank",
            .type = Type::integer,
            .limits = kPositive,
            .doc = "Rows of A and columns of B (PEFT's `r`)."},
           &A::rank),
      bind({.path = "adapter.alpha",
            .type = Type::real,
            .limits = {.above = 0},
            .doc = "The product of A and B is scaled by alpha / rank (PEFT's `lora_alpha`)."},
           &A::alpha),
      bind({.path = "adapter.targets",
            .type = Type::words,
            .alone = {kAllLinear},
            .doc = "Which linears get an adapter, by the names they have in the model's files: "
                   "`[q_proj, v_proj]`, `[c_attn]` of gpt2; or `all-linear`: every linear of the "
                   "layers (PEFT's `target_modules`)."},
           &A::targets),
      bind({.path = "adapter.dropout",
            .type = Type::real,
            .limits = {.at_least = 0, .below = 1},
            .doc = "Share of the elements of an adapter's input that training drops (PEFT's "
                   "`lora_dropout`); linears of one input, as q_proj and v_proj, drop the same."},
           &A::dropout),
      bind({.path = "adapter.rslora",
            .type = Type::boolean,
            .doc = "Scales by alpha / sqrt(rank) instead (Kalajdzievski, 2023), which keeps the "
                   "size of an update as the rank grows (PEFT's `use_rslora`)."},
           &A::rslora),
      bind({.path = "adapter.modules_to_save",
            .type = Type::words,
            .doc = "What trains whole beside the adapters, by the names in the model's files: "
                   "`[embed_tokens, lm_head]`. A table that embedding and head share trains as "
                   "one."},
           &A::modules_to_save),
      bind(
          {.path = "adapter.base_dtype",
           .doc = "Of the weights of the layers' linears, which do not train: `auto`, train.dtype; "
                  "`bf16`, the same and refused with `train.dtype: fp32`; `nf4`, 4 bits an element "
                  "(QLoRA: NormalFloat in blocks of 64 with double quantisation, as bitsandbytes "
                  "makes them), made anew in train.dtype for each product. Every dp rank then "
                  "holds them whole, at any zero_stage."},
          &A::base_dtype),
  };
}

}  // namespace tptrain::config
