// A table of plain rows in device memory, filled once: what a kernel over many tensors reads, so
// that its launch depends on nothing the host holds (a captured graph launches it again and again).
#pragma once

#include <ATen/Functions.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <type_traits>
#include <vector>

namespace tptrain::kernels::cuda {

template <typename Row>
class DeviceTable {
  static_assert(std::is_trivially_copyable_v<Row>);

 public:
  DeviceTable() = default;
  /// Blocks the host until the rows are there.
  DeviceTable(const std::vector<Row>& rows, at::Device device)
      : size_(static_cast<int64_t>(rows.size())) {
    if (rows.empty()) return;
    bytes_ = at::from_blob(const_cast<Row*>(rows.data()),
                           {size_ * static_cast<int64_t>(sizeof(Row))}, at::kByte)
                 .to(device, /*non_blocking=*/false, /*copy=*/true);
  }
  /// On the device; kernels may write them.
  Row* rows() const { return size_ == 0 ? nullptr : static_cast<Row*>(bytes_.mutable_data_ptr()); }
  int64_t size() const { return size_; }

 private:
  at::Tensor bytes_;
  int64_t size_ = 0;
};

}  // namespace tptrain::kernels::cuda
