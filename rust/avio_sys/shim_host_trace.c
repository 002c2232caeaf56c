// SPDX-License-Identifier: GPL-2.0
#include "shim_host.h"
#define CREATE_TRACE_POINTS
#include "trace_host.h"

void avio_trace_taken(u32 adapter, u32 queue, u16 tag, u16 lun, u8 opcode, u64 sector)
{
	trace_avio_taken(adapter, queue, tag, lun, opcode, sector);
}

void avio_trace_submitted(u32 adapter, u32 queue, u16 tag, u32 bytes)
{
	trace_avio_submitted(adapter, queue, tag, bytes);
}

void avio_trace_answered(u32 adapter, u32 queue, u16 tag, u8 status, u32 bytes)
{
	trace_avio_answered(adapter, queue, tag, status, bytes);
}
