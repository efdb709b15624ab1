//! The `fastnnunet` command.

fn main() {}
