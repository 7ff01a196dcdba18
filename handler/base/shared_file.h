// A file that the processes of a pool share as memory; all zeros when it is new.
//
// Whatever happens to the file costs its contents, never the process:
//   it cannot be opened or filled     memory of this process alone, from the start
//   somebody truncates it later       it is extended again; its contents are zeros
//   it cannot be extended or filled   memory of this process alone from then on, all zeros
// The last two are found by the access that fails (SIGBUS), which is then repeated.
//
// Errors: std::bad_alloc from the constructor when there is no memory at all; else TakeProblem().
// Thread rule: one thread. The signal handler guards the newest SharedFile of the process.
#ifndef HANDLER_BASE_SHARED_FILE_H_
#define HANDLER_BASE_SHARED_FILE_H_

#include <cstddef>
#include <string>

namespace keys {

class SharedFile {
 public:
  // Creates the file, mode 0660, where it is not there. An empty path: no file.
  SharedFile(const std::string& path, size_t size);
  ~SharedFile();
  SharedFile(const SharedFile&) = delete;
  SharedFile& operator=(const SharedFile&) = delete;

  void* data() const { return memory_; }
  // The descriptor, for locks on it; -1 when this process has been alone from the start.
  int file() const { return file_; }

  // What has happened to the file since the last call, for the log; empty: nothing.
  std::string TakeProblem();

 private:
  std::string path_;
  size_t size_;
  int file_ = -1;
  void* memory_ = nullptr;
  std::string problem_;
};

}  // namespace keys

#endif  // HANDLER_BASE_SHARED_FILE_H_
