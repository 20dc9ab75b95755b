# Packages of the distribution (Debian 12, Ubuntu 24.04): CLI11, yaml-cpp, nlohmann/json, spdlog, OpenSSL.
find_package(Threads REQUIRED)
find_package(OpenSSL 3 REQUIRED COMPONENTS Crypto)
find_package(spdlog REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(CLI11 REQUIRED)
