// What one rank has prepared, told to the others. In CBOR: names of files may be any bytes, which
// JSON's text cannot hold.
#include <nlohmann/json.hpp>

#include "data/token_store.h"

namespace tptrain::data {

namespace fs = std::filesystem;

std::string to_wire(const PreparedTokens& prepared) {
  const std::vector<std::string> indexed(prepared.indexed.begin(), prepared.indexed.end());
  const nlohmann::json message = {{"path", prepared.path.string()},
                                  {"identity", prepared.identity},
                                  {"tokens", prepared.tokens},
                                  {"documents", prepared.documents},
                                  {"split", prepared.split},
                                  {"reused", prepared.reused},
                                  {"rebuilt_because", prepared.rebuilt_because},
                                  {"indexed", indexed},
                                  {"vocab_size", prepared.vocab_size},
                                  {"read_as", prepared.read_as},
                                  {"end_of_turn", prepared.end_of_turn},
                                  {"notes", prepared.notes}};
  std::string wire;
  nlohmann::json::to_cbor(message, wire);
  return wire;
}

PreparedTokens prepared_from_wire(const std::string& wire) {
  const nlohmann::json message = nlohmann::json::from_cbor(wire);
  const auto indexed = message["indexed"].get<std::vector<std::string>>();
  return {.path = message["path"].get<std::string>(),
          .identity = message["identity"],
          .tokens = message["tokens"],
          .documents = message["documents"],
          .split = message["split"],
          .reused = message["reused"],
          .rebuilt_because = message["rebuilt_because"],
          .indexed = std::vector<fs::path>(indexed.begin(), indexed.end()),
          .vocab_size = message["vocab_size"],
          .read_as = message["read_as"],
          .end_of_turn = message["end_of_turn"],
          .notes = message["notes"]};
}

}  // namespace tptrain::data
