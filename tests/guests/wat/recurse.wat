;; Calls itself two thousand million times deep, each time to do something after; uses no stack but the engine's. What
;; ends it, and what comes after the call, are in memory, so that no optimiser can make a loop of it.
(module
  (memory (export "memory") 1)
  (data (i32.const 0) "\ff\ff\ff\7f")
  (func $down (param $depth i32) (result i32)
    (if (i32.eq (local.get $depth) (i32.load (i32.const 0))) (then (return (i32.const 0))))
    (i32.store (i32.const 8) (call $down (i32.add (local.get $depth) (i32.const 1))))
    (i32.load (i32.const 4)))
  (func (export "_start") (drop (call $down (i32.const 0)))))
