// A text of which each byte knows where it came from: which message of a conversation, and whether
// from what the assistant says or from the template. Whatever a template does with texts, cutting,
// joining, replacing, keeps that beside the bytes. Knows no template.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tptrain::chat_template {

struct Source {
  enum class Kind : uint8_t {
    unknown,    // made by the template outside of any message, or at one beside what a later says
    template_,  // made by the template while it was at the message
    field,      // of a field of the message that nobody is to learn: a role, what a user says
    answer,     // of what the assistant says, thinks or calls
  };
  Kind kind = Kind::unknown;
  int32_t message = -1;  // -1: of none
  bool operator==(const Source&) const = default;
};

class SourcedText {
 public:
  struct Run {
    size_t end;  // where it ends, in bytes
    Source source;
  };

  SourcedText() = default;
  SourcedText(std::string bytes, Source source = {});
  SourcedText(const char* bytes) : bytes_(bytes) {}

  const std::string& bytes() const { return bytes_; }
  operator const std::string&() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }

  void append_bytes(std::string_view bytes, Source source = {});
  /// `count` bytes of `text` from `begin`, with their sources.
  void append_part(const SourcedText& text, size_t begin, size_t count);
  void append(const SourcedText& text) { append_part(text, 0, text.size()); }
  SourcedText part(size_t begin, size_t count) const;
  Source source_at(size_t byte) const;
  /// Rising, no two alike in a row, up to the end; none where every source is unknown.
  const std::vector<Run>& runs() const { return runs_; }

 private:
  void extend(size_t end, Source source);

  std::string bytes_;
  std::vector<Run> runs_;
};

}  // namespace tptrain::chat_template
