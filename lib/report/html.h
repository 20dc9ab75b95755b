// Texts within a page. What comes from a run (names, settings, messages) is made harmless here and
// nowhere else.
#pragma once

#include <string>
#include <string_view>

namespace tptrain::report {

/// `text` as text of an element or of a quoted attribute.
std::string html_text(std::string_view text);
/// `json` (valid JSON) as the content of a <script> element: no end of an element, no comment.
std::string html_json(std::string_view json);
/// "sha256-..." of a style or script, for a Content-Security-Policy.
std::string content_hash(std::string_view content);

}  // namespace tptrain::report
