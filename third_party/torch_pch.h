// The precompiled header of every file that includes torch. A file still includes what it uses: this only makes it fast. Each header here
// costs every file, since gcc instantiates the templates that its inline functions name in each file anew: autograd's alone take over a second.
#pragma once
#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>
