// What each verb does: one file a verb. Each returns the exit code of the process, and throws
// Error, whose code main returns.
#pragma once

#include "cli.h"

namespace tptrain::apps {

/// Starts MPI, which may take its own arguments out of argv.
int run_train(const TrainCommand& command, int* argc, char*** argv);
int run_plan(const PlanCommand& command);
int run_generate(const GenerateCommand& command, int argc, char** argv);
int run_evaluate(const EvaluateCommand& command, int argc, char** argv);
/// Prints the manifest's facts and the table of tensors. Throws CheckpointError where there is no
/// valid manifest.
int run_inspect(const InspectCommand& command);
/// Prints a line a checkpoint. Returns 0 where all are valid, else 4. Throws CheckpointError where
/// there is none.
int run_verify(const VerifyCommand& command);
int run_schema(const SchemaCommand& command);

}  // namespace tptrain::apps
