// What names, paths and lists mean before anything is asked of a hub; with one, see e2e/fetch.
#include <cstdlib>

#include "base/error.h"
#include "base/git_blob_hash.h"
#include "hub/fetch.h"
#include "hub/http.h"
#include "hub/listing.h"
#include "hub/repository.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::hub {
namespace {

using testing::has;
using testing::message_of;
using testing::TempDir;

TEST_CASE("repositories are named as the hub names them", "[hub]") {
  const auto text = [](const std::string& name) {
    const Repository repository = parse_repository(name);
    return repository.text() + "@" + repository.revision;
  };
  CHECK(text("Qwen/Qwen2.5-0.5B") == "Qwen/Qwen2.5-0.5B@main");
  CHECK(text("gpt2") == "gpt2@main");
  CHECK(text("hf://Qwen/Qwen2.5-0.5B@v1.0") == "Qwen/Qwen2.5-0.5B@v1.0");
  CHECK(text("https://huggingface.co/Qwen/Qwen2.5-0.5B/") == "Qwen/Qwen2.5-0.5B@main");
  CHECK(text("datasets/Salesforce/wikitext@refs/convert/parquet") ==
        "datasets/Salesforce/wikitext@refs/convert/parquet");
  CHECK(parse_repository("datasets/Salesforce/wikitext").short_name() == "wikitext");
  for (const char* bad : {"", "/", "a/b/c", "../a", "a/..", "a b/c", ".git/x", "a--b/c", "a/b.",
                          "datasets/", "http://elsewhere/a/b"})
    CHECK(has(message_of<ConfigError>([&] { parse_repository(bad); }),
              "it must be written as OWNER/NAME"));
  for (const char* bad : {"a/b@", "a/b@x y", "a/b@../x", "a/b@x?y", "a/b@x\n"})
    CHECK(has(message_of<ConfigError>([&] { parse_repository(bad); }), "is no revision"));
}

TEST_CASE("paths of a listing stay within the folder", "[hub]") {
  for (const char* good :
       {"config.json", "a/b/c.txt", ".gitattributes", "name with space", "a..b", "\xc3\xa9.txt"})
    CHECK(fault_of_path(good) == "");
  for (const char* bad : {"", "/a", "../a", "a/../b", "a/..", ".", "a//b", "a/", "a\\b", "a\tb",
                          "\x1b[2J", ".tptrain-fetch", ".tptrain-fetch/x"})
    CHECK(fault_of_path(bad) != "");
  CHECK(fault_of_path(std::string("a\0b", 3)) != "");
  CHECK(fault_of_path(std::string(300, 'n')) != "");
}

TEST_CASE("addresses are of one server or of two", "[hub]") {
  CHECK(origin_of("https://Hub.co/a?b") == "https://hub.co");
  CHECK(origin_of("https://hub.co:443/a") == "https://hub.co");
  CHECK(origin_of("http://hub.co:8080") == "http://hub.co:8080");
  CHECK(origin_of("http://hub.co") != origin_of("https://hub.co"));
  for (const char* none :
       {"ftp://hub.co", "file:///etc/passwd", "hub.co", "https://", "https://hub.co@elsewhere/"})
    CHECK(origin_of(none) == "");
  CHECK(percent_encoded("a b/c%?#.txt") == "a%20b/c%25%3F%23.txt");
  CHECK(percent_encoded_part("refs/pr/1") == "refs%2Fpr%2F1");
}

TEST_CASE("git's name of contents", "[hub]") {
  GitBlobHash empty(0);
  CHECK(empty.hex() == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");  // git hash-object /dev/null
  GitBlobHash hash(6);
  hash.update("hel", 3);
  hash.update("lo\n", 3);
  CHECK(hash.hex() == "ce013625030ba8dba906f756967f9e9ca394464a");  // echo hello | git hash-object
}

TEST_CASE("of a model the same weights in other forms are left out", "[hub]") {
  const auto names = [](const std::vector<RemoteFile>& files) {
    std::vector<std::string> paths;
    for (const RemoteFile& file : files) paths.push_back(file.path);
    return paths;
  };
  Listing listing;
  for (const char* path :
       {".gitattributes", "config.json", "consolidated.safetensors", "flax_model.msgpack",
        "model.safetensors", "original/params.json", "pytorch_model.bin", "tokenizer.model"})
    listing.files.push_back({.path = path, .size_bytes = 1});
  FetchOptions options;
  CHECK(names(choose_files(listing, options).files) ==
        std::vector<std::string>{"config.json", "model.safetensors", "tokenizer.model"});
  CHECK(choose_files(listing, options).left_out.size() == 4);
  options.include = {"*.bin", "original/"};
  CHECK(names(choose_files(listing, options).files) ==
        std::vector<std::string>{"original/params.json", "pytorch_model.bin"});
  options.include = {"*.gguf"};
  CHECK(has(message_of<ConfigError>([&] { choose_files(listing, options); }),
            "--include *.gguf matches none of 8 files"));
  options.include = {};
  options.repository.kind = RepositoryKind::dataset;
  CHECK(choose_files(listing, options).files.size() == 7);
  options.repository.kind = RepositoryKind::model;
  listing.files = {{.path = "pytorch_model.bin", .size_bytes = 1}};
  CHECK(choose_files(listing, options).files.size() == 1);  // there is no other form
}

TEST_CASE("the environment that every tool of the hub heeds", "[hub]") {
  const TempDir home;
  for (const char* name : {"HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH",
                           "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DOWNLOAD_TIMEOUT"})
    unsetenv(name);
  setenv("HF_HOME", home.path().c_str(), 1);
  CHECK(hub_of_environment().endpoint == "https://huggingface.co");
  CHECK(hub_of_environment().token == "");
  home.put("token", "hf_kept\n");
  CHECK(hub_of_environment().token == "hf_kept");
  setenv("HF_TOKEN", " hf_mine ", 1);
  CHECK(hub_of_environment().token == "hf_mine");
  CHECK(hub_of_environment().token_from == "HF_TOKEN");
  setenv("HF_TOKEN", "hf_a\r\nHost: elsewhere", 1);
  CHECK(has(message_of<ConfigError>([] { hub_of_environment(); }), "the token of HF_TOKEN holds"));
  unsetenv("HF_TOKEN");
  setenv("HF_ENDPOINT", "https://mirror.example/", 1);
  setenv("HF_HUB_OFFLINE", "True", 1);
  CHECK(hub_of_environment().endpoint == "https://mirror.example");
  CHECK(hub_of_environment().offline);
  setenv("HF_HUB_DOWNLOAD_TIMEOUT", "ten", 1);
  CHECK(has(message_of<ConfigError>([] { hub_of_environment(); }), "whole number of seconds"));
}

}  // namespace
}  // namespace tptrain::hub
