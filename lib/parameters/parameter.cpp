#include "parameters/parameter.h"

#include "base/error.h"
#include "base/text.h"

namespace tptrain::parameters {

std::string_view role_name(Role role) {
  switch (role) {
    case Role::vocab_parallel:
      return "vocab-parallel";
    case Role::column_parallel:
      return "column-parallel";
    case Role::row_parallel:
      return "row-parallel";
    case Role::replicated:
      return "replicated";
  }
  throw InternalError(problem("a Role outside its enumeration"));
}

at::Tensor Parameter::values() const {
  if (packed != nullptr) return packed->values(*this);
  if (!fp8.rows.defined()) return data;
  throw InternalError(problem(cat("the values of '", name, "', which is gathered as FP8"))
                          .must("be read as FP8: there are no others"));
}

int64_t Parameter::numel() const {
  int64_t result = 1;
  for (const int64_t size : shape) result *= size;
  return result;
}

int64_t Parameter::storage_numel() const {
  if (padding_rows == 0) return numel();
  return numel() / shape.at(0) * (shape.at(0) + padding_rows);
}

at::Tensor Parameter::with_padding(const at::Tensor& of) const {
  std::vector<int64_t> padded = shape;
  padded.at(0) += padding_rows;
  return of.as_strided(padded, of.strides());
}

}  // namespace tptrain::parameters
