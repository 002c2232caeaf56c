// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Manual pages of programs from their command lines, so that the two cannot differ.

use std::io;
use std::process::exit;

use clap::{CommandFactory, Parser};
use clap_mangen::Man;

/// The program's arguments. Given `--man` and nothing else, it writes its manual page, for section 8, and ends.
pub fn parse<Args: Parser>() -> Args {
    let mut given = std::env::args_os().skip(1);
    if given.next().is_some_and(|word| word == "--man") && given.next().is_none() {
        exit(i32::from(write::<Args>().is_err()));
    }
    Args::parse()
}

fn write<Args: CommandFactory>() -> io::Result<()> {
    let page = Man::new(Args::command()).section("8");
    page.render(&mut io::stdout())
}
