// The precompiled header of every file that includes torch. A file still includes what it uses: this only makes it fast.
#pragma once
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/generated/variable_factories.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>
