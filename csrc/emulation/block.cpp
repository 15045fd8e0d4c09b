// Fibers of a block: who runs, who waits where, and what shared memory has seen.
#include <setjmp.h>
#include <ucontext.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "collectives.h"

// Whose matrix instructions.
extern "C" int tensor_core = TENSOR_CORE;

namespace emulation {
namespace {

constexpr int STACK_BYTES = 256 * 1024;
constexpr int NOBODY = -1, MANY = -2;

// A context starts a fiber; from then on jumps switch, since swapcontext asks the kernel for signal masks each time.
struct Thread {
  ucontext_t context;
  jmp_buf place;
  bool started;
  Meeting waits_at;
  void* brought;
  bool finished;
};

// What happened to two bytes of shared memory. An epoch counts the barriers that its block or warp has passed.
struct Trace {
  int writer = NOBODY;
  long write_block_epoch = 0, write_warp_epoch = 0;
  int reader = NOBODY, reader_warp = NOBODY;
  long read_block_epoch = -1, read_warp_epoch = -1;
};

// Which block of a launch wrote two bytes of global memory, and which read them: NOBODY, MANY or its index.
struct GlobalTrace {
  long long writer = NOBODY, reader = NOBODY;
};

struct Block {
  const std::function<void()>* kernel;
  long long index;
  std::vector<Thread> threads;
  std::vector<std::vector<char>> stacks;
  jmp_buf scheduler;
  int running;
  std::string error;
  std::vector<uint4> shared;
  int shared_bytes;
  std::vector<Trace> traces;
  long block_epoch;
  std::vector<long> warp_epochs;
  const Buffer* buffers;
  int buffer_count;
  std::vector<std::vector<GlobalTrace>> global_traces;  // by buffer
};

Block block;

std::string where() {
  return " (block " + std::to_string(block.index) + ", thread " + std::to_string(block.running) + ")";
}

void thread_main() {
  try {
    (*block.kernel)();
  } catch (const std::runtime_error& error) {
    block.error = error.what();
  }
  block.threads[block.running].finished = true;
  _longjmp(block.scheduler, 1);
}

void resume(int index) {
  block.running = index;
  if (_setjmp(block.scheduler)) return;
  Thread& thread = block.threads[index];
  if (thread.started) _longjmp(thread.place, 1);
  thread.started = true;
  setcontext(&thread.context);
}

int count_waiting(int warp, Meeting meeting) {
  int count = 0;
  for (int lane = 0; lane < 32; ++lane) {
    const Thread& thread = block.threads[32 * warp + lane];
    count += !thread.finished && thread.waits_at == meeting;
  }
  return count;
}

int count_finished(int warp) {
  int count = 0;
  for (int lane = 0; lane < 32; ++lane) count += block.threads[32 * warp + lane].finished;
  return count;
}

void hold_meeting(int warp) {
  const Meeting meeting = block.threads[32 * warp].waits_at;
  if (meeting == Meeting::warp_barrier) {
    ++block.warp_epochs[warp];
  } else {
    void* brought[32];
    for (int lane = 0; lane < 32; ++lane) brought[lane] = block.threads[32 * warp + lane].brought;
    perform(meeting, brought);
  }
  for (int lane = 0; lane < 32; ++lane) block.threads[32 * warp + lane].waits_at = Meeting::none;
}

// Let a warp run until all its threads wait for the block or have finished.
void run_warp(int warp) {
  while (block.error.empty()) {
    for (int lane = 0; lane < 32; ++lane) {
      const int thread = 32 * warp + lane;
      if (!block.threads[thread].finished && block.threads[thread].waits_at == Meeting::none) resume(thread);
      if (!block.error.empty()) return;
    }
    if (count_waiting(warp, Meeting::block_barrier) == 32 || count_finished(warp) == 32) return;
    const Thread& first = block.threads[32 * warp];
    if (first.finished || first.waits_at == Meeting::block_barrier || count_waiting(warp, first.waits_at) != 32) {
      block.error = "divergent threads: not all of warp " + std::to_string(warp) + " of block " +
                    std::to_string(block.index) + " reach the same barrier or collective";
      return;
    }
    hold_meeting(warp);
  }
}

void run_block() {
  const int threads = static_cast<int>(block.threads.size()), warps = threads / 32;
  block.block_epoch = 0;
  block.warp_epochs.assign(warps, 0);
  block.traces.assign((block.shared_bytes + 1) / 2, Trace());
  // Bytes of a former block must not pass for data: NaN in float16 and in float32.
  std::memset(block.shared.data(), 0xff, block.shared.size() * sizeof(uint4));
  for (int i = 0; i < threads; ++i) {
    Thread& thread = block.threads[i];
    thread.waits_at = Meeting::none;
    thread.started = thread.finished = false;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = block.stacks[i].data();
    thread.context.uc_stack.ss_size = STACK_BYTES;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, thread_main, 0);
  }
  for (;;) {
    int waiting = 0, finished = 0;
    for (int warp = 0; warp < warps && block.error.empty(); ++warp) {
      run_warp(warp);
      waiting += count_waiting(warp, Meeting::block_barrier);
      finished += count_finished(warp);
    }
    if (!block.error.empty() || finished == threads) return;
    if (waiting != threads) {
      block.error = "divergent barrier: not all threads of block " + std::to_string(block.index) + " reach it";
      return;
    }
    ++block.block_epoch;
    for (Thread& thread : block.threads) thread.waits_at = Meeting::none;
  }
}

}  // namespace

const char* run(const std::function<void()>& kernel, long long blocks, int threads, int shared_bytes,
                const Buffer* buffers, int buffer_count) {
  block.kernel = &kernel;
  block.threads.resize(threads);
  while (static_cast<int>(block.stacks.size()) < threads) block.stacks.emplace_back(STACK_BYTES);
  block.shared.resize((shared_bytes + 15) / 16);
  block.shared_bytes = shared_bytes;
  block.buffers = buffers;
  block.buffer_count = buffer_count;
  block.global_traces.resize(buffer_count);
  for (int i = 0; i < buffer_count; ++i) block.global_traces[i].assign((buffers[i].bytes + 1) / 2, GlobalTrace());
  block.error.clear();
  for (block.index = 0; block.index < blocks && block.error.empty(); ++block.index) run_block();
  return block.error.empty() ? nullptr : block.error.c_str();
}

void meet(Meeting meeting, void* brought) {
  Thread& thread = block.threads[block.running];
  thread.waits_at = meeting;
  thread.brought = brought;
  if (!_setjmp(thread.place)) _longjmp(block.scheduler, 1);
}

void fail(const char* reason) { throw std::runtime_error(reason + where()); }

char* shared_start() { return reinterpret_cast<char*>(block.shared.data()); }
int shared_bytes() { return block.shared_bytes; }

namespace {

// The traces of an access, in the first buffer that holds it.
GlobalTrace* global_traces(const void* at, int bytes) {
  const char* start = static_cast<const char*>(at);
  if (reinterpret_cast<unsigned long long>(start) % bytes) fail("misaligned global access");
  for (int i = 0; i < block.buffer_count; ++i) {
    const Buffer& buffer = block.buffers[i];
    if (start >= buffer.start && start + bytes <= buffer.start + buffer.bytes)
      return block.global_traces[i].data() + (start - buffer.start) / 2;
  }
  fail("global access out of bounds");
}

bool of_another_block(long long who) { return who != NOBODY && who != block.index; }

}  // namespace

void note_global_read(const void* at, int bytes) {
  GlobalTrace* const traces = global_traces(at, bytes);
  for (int i = 0; i < bytes / 2; ++i) {
    if (of_another_block(traces[i].writer)) fail("global memory read that another block writes");
    traces[i].reader = of_another_block(traces[i].reader) ? MANY : block.index;
  }
}

void note_global_write(const void* at, int bytes) {
  GlobalTrace* const traces = global_traces(at, bytes);
  for (int i = 0; i < bytes / 2; ++i) {
    if (of_another_block(traces[i].writer)) fail("global memory written by two blocks");
    if (of_another_block(traces[i].reader)) fail("global memory written that another block reads");
    traces[i].writer = block.index;
  }
}

void check_shared(const void* at, int bytes, const void* low, const void* high) {
  if (reinterpret_cast<unsigned long long>(at) % bytes) fail("misaligned shared access");
  if (at < low || static_cast<const char*>(at) + bytes > high) fail("shared access out of bounds");
}

void note_shared_read(const void* at, int bytes) {
  const long first = (static_cast<const char*>(at) - shared_start()) / 2;
  const int me = block.running, warp = me / 32;
  for (long i = first; i < first + bytes / 2; ++i) {
    Trace& trace = block.traces[i];
    if (trace.writer == NOBODY) fail("read of shared memory that nothing wrote");
    const bool ordered = trace.writer == me || trace.write_block_epoch < block.block_epoch ||
                         (trace.writer / 32 == warp && trace.write_warp_epoch < block.warp_epochs[warp]);
    if (!ordered) fail("shared memory read and written by two threads without a barrier between");
    const bool same_epoch = trace.read_block_epoch == block.block_epoch;
    trace.reader = same_epoch && trace.reader != me ? MANY : me;
    trace.reader_warp = same_epoch && trace.reader_warp != warp ? MANY : warp;
    trace.read_block_epoch = block.block_epoch;
    trace.read_warp_epoch = block.warp_epochs[warp];
  }
}

void note_shared_write(const void* at, int bytes) {
  const long first = (static_cast<const char*>(at) - shared_start()) / 2;
  const int me = block.running, warp = me / 32;
  for (long i = first; i < first + bytes / 2; ++i) {
    Trace& trace = block.traces[i];
    const bool after_reads = trace.reader == me || trace.read_block_epoch < block.block_epoch ||
                             (trace.reader_warp == warp && trace.read_warp_epoch < block.warp_epochs[warp]);
    const bool after_write = trace.writer == NOBODY || trace.writer == me ||
                             trace.write_block_epoch < block.block_epoch ||
                             (trace.writer / 32 == warp && trace.write_warp_epoch < block.warp_epochs[warp]);
    if (!after_reads || !after_write) fail("shared memory written by a second thread without a barrier between");
    trace.writer = me;
    trace.write_block_epoch = block.block_epoch;
    trace.write_warp_epoch = block.warp_epochs[warp];
  }
}

}  // namespace emulation

long long block_index() { return emulation::block.index; }
int thread_index() { return emulation::block.running; }
