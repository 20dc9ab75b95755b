// What to say of a row that is of no kind that is read: what it has in their place, and which names
// make it one. Private to this folder; included where simdjson is.
#pragma once

#include <simdjson.h>

#include "base/error.h"
#include "data/row_names.h"

namespace tptrain::data {

/// Without its place.
Problem unknown_row(const simdjson::dom::object& row, const RowNames& names);

}  // namespace tptrain::data
