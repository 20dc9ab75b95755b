// What lies in place of a file that was to be there: a pointer that Git left, a page that a web
// server answered with. Told by how it begins; asked for by whoever could not read such a file, so
// that the message says what happened instead of which byte was wrong.
#pragma once

#include <string>
#include <string_view>

namespace tptrain {

/// Throws DataError naming `where`, what it is and what to do, where `beginning` (the first bytes,
/// or the whole) is a Git LFS pointer, a web page, the hub's answer that there is no such file, or
/// an archive. Nothing else is judged.
void refuse_foreign_file(std::string_view beginning, const std::string& where);

}  // namespace tptrain
