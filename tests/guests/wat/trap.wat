;; Traps two calls deep; the names show in the backtrace.
(module
  (memory (export "memory") 1)
  (func $innermost unreachable)
  (func $inner (call $innermost))
  (func $start (export "_start") (call $inner)))
