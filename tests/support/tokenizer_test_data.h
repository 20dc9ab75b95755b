// The real tokenizers of the test data, which is no part of the repository.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

namespace tptrain::testing {

inline std::filesystem::path tokenizer_data(const std::string& name) {
  const char* folder = std::getenv("TPTRAIN_TEST_DATA");
  if (!folder) throw std::runtime_error("TPTRAIN_TEST_DATA is not set: it names the test data");
  return std::filesystem::path(folder) / "tokenizers" / name;
}

inline std::string content_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

inline nlohmann::json json_of(const std::filesystem::path& path) {
  return nlohmann::json::parse(content_of(path));
}

}  // namespace tptrain::testing
