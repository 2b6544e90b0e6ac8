;; Fills memory and copies it, and exits with 42.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (memory.fill (i32.const 16) (i32.const 42) (i32.const 64))
    (memory.copy (i32.const 1000) (i32.const 16) (i32.const 64))
    (call $exit (i32.load8_u (i32.const 1063)))))
