// What each verb does: one file a verb. Each returns the exit code of the process, and throws
// Error, whose code main returns.
#pragma once

#include <cstdint>

#include "cli.h"

namespace tptrain::apps {

/// Of a run file or a config.json.
constexpr int64_t kTextLimitBytes = int64_t{1} << 24;

/// Starts MPI, which may take its own arguments out of argv.
int run_train(const TrainCommand& command, int* argc, char*** argv);
/// Starts mpirun, and returns what became of the run.
int run_launch(const LaunchCommand& command);
int run_plan(const PlanCommand& command);
int run_generate(const GenerateCommand& command, int argc, char** argv);
int run_evaluate(const EvaluateCommand& command, int argc, char** argv);
/// Prints a line a source; makes token files only where they are not there.
int run_prepare(const PrepareCommand& command);
/// Prints a line a file as it is written, and what the model is.
int run_export(const ExportCommand& command);
/// Prints the facts and the table of tensors: of a checkpoint's manifest, or of a Hugging Face
/// directory or safetensors file, which it checks whole. Throws CheckpointError where there is no
/// valid manifest or a rule is broken.
int run_inspect(const InspectCommand& command);
/// Prints a line a checkpoint. Returns 0 where all are valid, else 4. Throws CheckpointError where
/// there is none.
int run_verify(const VerifyCommand& command);
/// Writes the page and prints its path. Throws DataError where a path holds no run.
int run_report(const ReportCommand& command);
/// Draws the view again and again on a terminal, until every run is done or it is interrupted;
/// elsewhere once.
int run_watch(const WatchCommand& command);
/// Prints what it finds. Returns 0 where nothing keeps a run from working, else 2.
int run_doctor(const DoctorCommand& command);
/// Prints what it fetches, and where it is.
int run_fetch(const FetchCommand& command);
/// Lines of standard input to lines of standard output, in their order. Throws DataError naming the
/// first line that fails; those before it are written.
int run_tokenize(const TokenizeCommand& command);
int run_schema(const SchemaCommand& command);

}  // namespace tptrain::apps
