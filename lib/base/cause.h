// An error within the sentence of another.
#pragma once

#include <exception>
#include <string>

namespace tptrain {

/// What it says, without its kind, its remedy and its full stop; of several the first.
std::string cause_of(const std::exception& error);

}  // namespace tptrain
