//! A greeting, the arguments, one environment variable; then exit code 3.
const std = @import("std");

pub fn main(init: std.process.Init) !u8 {
    var buffer: [4096]u8 = undefined;
    var stdout = std.Io.File.stdout().writer(init.io, &buffer);
    const out = &stdout.interface;
    try out.print("hello from Zig\n", .{});
    const args = try init.minimal.args.toSlice(init.arena.allocator());
    for (args[1..]) |arg| try out.print("arg {s}\n", .{arg});
    try out.print("COLOUR={s}\n", .{init.environ_map.get("COLOUR") orelse "none"});
    try out.flush();
    return 3;
}
