#include "tensor_parallel/block_observer.h"

#include <utility>

#include "tensor_parallel/vocab_parallel.h"

namespace tptrain::tensor_parallel {

at::Tensor BlockObserver::look_up(const parameters::Parameter& table, const at::Tensor& ids) {
  return table_rows(table, ids);
}

void BlockObserver::add_table_rows(parameters::Parameter& table, at::Tensor rows,
                                   const at::Tensor& ids) {
  tensor_parallel::add_table_rows(table, std::move(rows), ids);
}

}  // namespace tptrain::tensor_parallel
