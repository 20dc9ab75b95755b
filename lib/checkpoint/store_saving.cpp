// CheckpointStore: the saves of a run, at once or beside its steps. One save is in save.cpp.
#include <algorithm>
#include <utility>

#include "base/random_id.h"
#include "checkpoint/store_impl.h"

namespace tptrain::checkpoint {

CheckpointStore::~CheckpointStore() { abandon_save(); }

void CheckpointStore::abandon_save() {
  give_up_writing();
  impl_->job.reset();
  impl_->save.reset();
}

std::string CheckpointStore::require_space(const sharding::StateDict& state, const RunIdentity& run,
                                           int64_t saves, int64_t staying) {
  const SaveBytes bytes = bytes_of_save(impl_->group, state);
  std::string warning;
  comm::agree(impl_->group, [&] {
    if (!impl_->first() || saves < 1) return;
    const int64_t own = count_own_checkpoints(impl_->options.directory, run);
    const int64_t keep = impl_->options.keep;
    const int64_t kept = keep + (impl_->options.keep_best ? 1 : 0) + staying;
    const int64_t at_once = keep == 0 ? own + saves : std::min(kept + 1, own + saves);
    const int64_t more = std::max<int64_t>(1, at_once - own);
    warning = check_space_for_run(impl_->options.directory, bytes, more, /*must_fit=*/keep > 0);
  });
  return warning;
}

SaveAgain CheckpointStore::save_again() const { return impl_->again; }

void CheckpointStore::begin_save(const sharding::StateDict& state, const TrainState& train_state) {
  Impl& self = *impl_;
  if (self.save) throw InternalError(problem("a save was begun while another is under way"));
  self.retention_problems.clear();
  self.again = SaveAgain::at_once;
  self.run_dir_was_removed = false;
  // Counted before the attempt: a save that fails after its commit must not share its number with
  // the next.
  SaveOrder order{.directory = self.options.directory,
                  .save_id = self.group.broadcast(self.first() ? random_id() : "", 0),
                  .parent_save_id = self.parent_save_id,
                  .save_sequence = ++self.last_sequence,
                  .owner = self.options.owner,
                  .again = self.again,
                  .run_dir_was_removed = self.run_dir_was_removed,
                  .fault_point = self.options.fault_point};
  self.or_end_save([&] { self.save.emplace(self.group, std::move(order), state, train_state); });
  self.save_bytes = self.save->bytes_of_shards();
}

void CheckpointStore::start_writing() {
  Impl& self = *impl_;
  self.stage = Impl::Stage::writing;
  self.job.emplace(Priority::low, [&save = *self.save] { save.write_shard(); });
}

bool CheckpointStore::is_saving() const { return impl_->save.has_value(); }

int64_t CheckpointStore::save_bytes() const { return impl_->save_bytes; }

int64_t CheckpointStore::bytes_to_write() const {
  return impl_->save ? impl_->save->bytes_to_write() : 0;
}

std::chrono::steady_clock::time_point CheckpointStore::committed_at() const {
  return impl_->committed_at;
}

CheckpointStore::Progress CheckpointStore::save_progress() const {
  if (impl_->save && !impl_->job) {
    // Ranks other than 0 have nothing to do for a commit.
    return impl_->stage == Impl::Stage::committing ? Progress::done : Progress::busy;
  }
  if (!impl_->job || !impl_->job->is_done()) return Progress::busy;
  return impl_->job->failed() ? Progress::failed : Progress::done;
}

std::optional<CheckpointInfo> CheckpointStore::continue_save() {
  Impl& self = *impl_;
  if (!self.save) throw InternalError(problem("no save is under way"));
  if (self.stage == Impl::Stage::writing) {
    self.or_end_save([&] {
      self.await_shards();
      self.save->gather_records();
    });
    self.job.reset();
    self.stage = Impl::Stage::committing;
    if (self.first()) {
      self.job.emplace(Priority::low, [&self] {
        self.commit();
        self.retention_problems = self.remove_old(self.committed);
      });
    }
    return std::nullopt;
  }
  self.or_end_save([&] {
    comm::agree(self.group, [&] {
      if (self.job) self.job->get();
    });
  });
  return self.end_save();
}

CheckpointInfo CheckpointStore::save(const sharding::StateDict& state,
                                     const TrainState& train_state) {
  Impl& self = *impl_;
  begin_save(state, train_state);
  self.or_end_save([&] {
    // On this thread: the state may be a GPU's.
    comm::agree(self.group, [&] {
      const Work work("saving the checkpoint", WorkUnit::bytes, self.save->bytes_of_shard());
      self.save->write_shard();
    });
    self.save->gather_records();
    comm::agree(self.group, [&] {
      if (self.first()) self.commit();
    });
  });
  if (self.first()) self.retention_problems = self.remove_old(self.committed);
  return self.end_save();
}

void CheckpointStore::retain(const CheckpointInfo& newest) {
  Impl& self = *impl_;
  self.retention_problems.clear();
  if (self.first() && newest.path.parent_path() == self.options.directory)
    self.retention_problems = self.remove_old(newest);
  self.group.barrier();  // no rank goes on while rank 0 still removes: a rank that left would find
                         // a busy directory at its next step
}

void CheckpointStore::give_up_writing() {
  if (impl_->save) impl_->save->give_up();
}

}  // namespace tptrain::checkpoint
