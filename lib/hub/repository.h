// Which repository of the Hugging Face hub is meant, and how the hub is reached: names as they
// stand on a command line, and the environment that every tool of the hub heeds. No network here.
#pragma once

#include <chrono>
#include <string>

namespace tptrain::hub {

enum class RepositoryKind { model, dataset };

struct Repository {
  RepositoryKind kind = RepositoryKind::model;
  std::string id;                 // "Qwen/Qwen2.5-0.5B", "gpt2"
  std::string revision = "main";  // a branch, a tag or a commit

  /// "Qwen2.5-0.5B"
  std::string short_name() const;
  /// As parse_repository takes it: "datasets/Salesforce/wikitext".
  std::string text() const;
};

/// OWNER/NAME or NAME, datasets/OWNER/NAME; also as hf://..., with @REVISION behind it, or as the
/// address of its page. Throws ConfigError.
Repository parse_repository(const std::string& text);
/// Throws ConfigError where it is no name of a branch, tag or commit.
void check_revision(const std::string& revision);

struct Hub {
  std::string endpoint = "https://huggingface.co";  // no slash behind it
  std::string token;                                // "": none
  std::string token_from;                           // "HF_TOKEN", or the path of its file
  std::string certificates;                         // a file of authorities; "": the system's
  std::chrono::seconds stall_timeout{30};           // without a byte
  bool offline = false;
};
/// HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME, HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT, and
/// SSL_CERT_FILE. Throws ConfigError for what cannot be heeded.
Hub hub_of_environment();

/// A part of an address: everything but letters, digits and -._~ as %XX; '/' stays.
std::string percent_encoded(const std::string& path);
/// The same, and '/' too: a name that is one part.
std::string percent_encoded_part(const std::string& name);

}  // namespace tptrain::hub
