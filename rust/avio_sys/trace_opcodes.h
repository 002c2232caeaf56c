/* SPDX-License-Identifier: GPL-2.0 */
/* The commands by their opcodes (avio_abi::stor::opcode), for what trace events print. */
#ifndef AVIO_TRACE_OPCODES_H
#define AVIO_TRACE_OPCODES_H
#define AVIO_OPCODES \
	{ 1, "READ" }, { 2, "WRITE" }, { 3, "FLUSH" }, { 4, "DISCARD" }, { 5, "SECURE_ERASE" }, { 6, "WRITE_ZEROES" }
#endif
