;; Adds vectors of four, and exits with 42.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (call $exit
      (i32x4.extract_lane 3
        (i32x4.add (v128.const i32x4 1 2 3 40) (v128.const i32x4 1 1 1 2))))))
