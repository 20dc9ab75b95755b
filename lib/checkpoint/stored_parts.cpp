#include "checkpoint/stored_parts.h"

#include <set>
#include <string>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::checkpoint {

namespace {

using sharding::StoredTensor;

[[noreturn]] void contradiction(const StoredTensor& tensor, const char* fault) {
  throw InternalError(problem(
      cat("the stored form of tensor ", tensor.name, ", \"", tensor.stored_name, "\": ", fault)));
}

// The stored dimension along which parts are joined.
size_t joined_dim(const StoredTensor& tensor) { return tensor.transposed ? 1 : 0; }

void check_form(const StoredTensor& tensor) {
  if (tensor.shape.empty() || tensor.shape.size() != tensor.stored_shape.size()) {
    contradiction(tensor, "the shapes have different dimensions, or none");
  }
  if (tensor.transposed && tensor.shape.size() != 2) {
    contradiction(tensor, "it is transposed, but no matrix");
  }
  for (size_t dim = 1; dim < tensor.shape.size(); ++dim) {
    const size_t stored_dim = tensor.transposed ? 0 : dim;
    if (tensor.shape[dim] != tensor.stored_shape[stored_dim]) {
      contradiction(tensor, "the inner dimensions differ");
    }
  }
}

}  // namespace

std::vector<std::span<const StoredTensor>> stored_parts(const sharding::StoredModel& model) {
  std::vector<std::span<const StoredTensor>> parts;
  const std::span<const StoredTensor> all(model.tensors);
  for (size_t begin = 0; begin < all.size();) {
    size_t end = begin + 1;
    while (end < all.size() && all[end].stored_name == all[begin].stored_name) ++end;
    parts.push_back(all.subspan(begin, end - begin));
    begin = end;
  }
  return parts;
}

void check_stored_model(const sharding::StoredModel& model) {
  std::set<std::string> names;
  std::set<std::string> stored_names;
  for (const std::span<const StoredTensor> parts : stored_parts(model)) {
    const StoredTensor& first = parts.front();
    if (!stored_names.insert(first.stored_name).second) {
      contradiction(first, "its parts do not stand side by side");
    }
    int64_t covered = 0;
    for (const StoredTensor& part : parts) {
      check_form(part);
      if (!names.insert(part.name).second) contradiction(part, "the name is given twice");
      if (part.stored_shape != first.stored_shape || part.transposed != first.transposed) {
        contradiction(part, "its parts differ in form");
      }
      if (part.first != covered) contradiction(part, "its parts overlap or leave a hole");
      covered += part.shape[0];
    }
    if (covered != first.stored_shape[joined_dim(first)]) {
      contradiction(first, "its parts do not cover it");
    }
  }
}

}  // namespace tptrain::checkpoint
