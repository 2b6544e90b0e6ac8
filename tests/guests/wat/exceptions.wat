;; Catches what a function throws, by a reference, and exits with 42, which was thrown.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (tag $thrown (param i32))
  (memory (export "memory") 1)
  (func $throw (throw $thrown (i32.const 42)))
  (func (export "_start")
    (call $exit
      (block $caught (result i32)
        (try_table (catch $thrown $caught) (call $throw))
        (i32.const 1)))))
