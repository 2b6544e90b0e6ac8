;; Prints "ready\n" and sleeps for an hour in poll_oneoff.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\06\00\00\00") ;; iovec: at 16, 6 bytes
  (data (i32.const 16) "ready\n")
  (func (export "_start")
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    ;; subscription at 32 (48 bytes): userdata 0, tag 0 (clock), clock 1 (monotonic), relative timeout
    (i32.store (i32.const 48) (i32.const 1))
    (i64.store (i32.const 56) (i64.const 3600000000000))
    (drop (call $poll_oneoff (i32.const 32) (i32.const 96) (i32.const 1) (i32.const 128)))))
