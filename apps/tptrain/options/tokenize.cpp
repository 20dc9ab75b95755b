#include "base/background.h"
#include "options/options.h"
#include "options/verb_parser.h"

namespace tptrain::apps {

Command parse_tokenize(const std::vector<std::string>& arguments) {
  VerbParser parser(
      "tokenize",
      "Shows the ids of texts: reads JSON lines {\"text\": ...} from standard input and writes "
      "{\"ids\": [...], \"tokens\": [...]} for each. Special tokens are put around a text as the "
      "tokenizer does it (begin-of-text of Llama).\n"
      "Exit code 3: a line cannot be read or encoded; those before it are written.",
      "  echo '{\"text\": \"Hello\"}' | tptrain tokenize --tokenizer models/Qwen2.5-0.5B\n"
      "  tptrain tokenize --tokenizer models/Qwen2.5-0.5B --chat < data/chat.jsonl\n"
      "  tptrain tokenize --tokenizer tokenizer.model --decode < ids.jsonl");
  TokenizeCommand command;
  command.threads = usable_cores();
  parser.option("--tokenizer", command.tokenizer, "DIR|FILE|bytes",
                "A directory with tokenizer.json, tokenizer.model or vocab.json, such a file, or "
                "bytes");
  parser.flag("--no-special", command.no_special,
              "Puts nothing around a text; with --decode: leaves special tokens out");
  parser.flag("--special-as-text", command.special_as_text,
              "Strings of special tokens inside a text are ordinary text");
  parser.flag("--decode", command.decode, "Reads {\"ids\": [...]} and writes {\"text\": ...}");
  parser.flag("--chat", command.chat,
              "Reads {\"messages\": [...]}, with {\"tools\": [...]} if there are any, and writes "
              "the text of the chat template with its ids");
  parser.flag("--generation-prompt", command.generation_prompt,
              "With --chat: ends with what an answer begins with");
  parser.option("--chat-variables", command.chat_variables, "JSON",
                "With --chat: an object of further variables: '{\"enable_thinking\": false}'");
  parser.option("--threads", command.threads, "N", "Lines worked on at a time (all cores)");
  if (auto help = parser.parse(arguments)) return *help;
  parser.require(!command.tokenizer.empty(), "--tokenizer is missing",
                 "name a directory, a file or bytes");
  parser.require(!command.decode || !command.chat, "--decode and --chat are both given",
                 "be one of them at most");
  parser.require(!command.decode || !command.special_as_text,
                 "--special-as-text is given with --decode", "go with texts");
  parser.require(!command.chat || !command.special_as_text,
                 "--special-as-text is given with --chat",
                 "be left out: the template writes special tokens itself");
  parser.require(!command.chat || !command.no_special, "--no-special is given with --chat",
                 "be left out: the template says what stands around a text");
  parser.require(command.chat || !command.generation_prompt,
                 "--generation-prompt is given without --chat", "go with --chat");
  parser.require(command.chat || command.chat_variables.empty(),
                 "--chat-variables is given without --chat", "go with --chat");
  parser.require(command.threads >= 1 && command.threads <= 1024,
                 cat("--threads is ", command.threads), "be from 1 to 1024");
  parser.finish();
  return command;
}

}  // namespace tptrain::apps
