// The page's own style and script (page/), as the build put them into the program.
#pragma once

namespace tptrain::report {

extern const char* const kPageStyle;
extern const char* const kPageScript;

}  // namespace tptrain::report
