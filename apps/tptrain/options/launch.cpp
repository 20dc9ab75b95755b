#include "options/options.h"
#include "options/verb_parser.h"

namespace tptrain::apps {

Command parse_launch(const std::vector<std::string>& arguments) {
  LaunchCommand command;
  VerbParser parser(
      "launch",
      "Trains a model on several ranks: starts mpirun with the options that are right for this "
      "machine, and starts it again from the last checkpoint after a crash, a hang or a lost "
      "host. What no restart mends (exit codes 2 to 5) ends it at once; 75 ends it as stopped. A "
      "signal that asks for a stop reaches every rank. Each start is a line of "
      "run_dir/attempts.jsonl. See docs/running.md.",
      "  tptrain launch -n 4 --config run.yaml\n"
      "  tptrain launch -n 8 --hosts node1:4,node2:4 --min-ranks 4 --config run.yaml");
  parser.option("-n", command.ranks, "RANKS",
                "How many ranks; left out: tp_size * dp_size of the run file");
  parser.option("--config", command.config, "FILE", "The run file (docs/configuration.md)");
  parser.list("--set", command.sets, "section.key=value", kSetDoc);
  parser.option("--max-restarts", command.max_restarts, "N",
                "How often it is started again at most; 0: never");
  parser.option("--min-ranks", command.min_ranks, "N",
                "Where hosts or GPUs are lost it goes on with fewer ranks, down to N, if the "
                "layout allows it: whole tp groups, the same global batch; left out: never");
  parser.option("--hosts", command.hosts, "HOST:RANKS,...",
                "The hosts and the ranks that each takes; left out: this one");
  parser.option("--agent", command.agent, "COMMAND",
                "What starts a command on a host, called as COMMAND HOST WORD...; left out: ssh");
  parser.option("--mpirun", command.mpirun, "PATH", "Open MPI's launcher");
  if (auto help = parser.parse(arguments)) return *help;
  parser.require(!command.config.empty(), "--config is missing", "name the run file");
  parser.require(!command.ranks || *command.ranks >= 1, "-n is below 1", "be at least 1");
  parser.require(command.max_restarts >= 0 && command.max_restarts <= 1000000,
                 cat("--max-restarts is ", command.max_restarts), "be between 0 and 1000000");
  parser.require(!command.min_ranks || *command.min_ranks >= 1, "--min-ranks is below 1",
                 "be at least 1");
  parser.require(command.agent.empty() || !command.hosts.empty(), "--agent is given",
                 "come with --hosts: on this host nothing needs it");
  parser.finish();
  return command;
}

}  // namespace tptrain::apps
