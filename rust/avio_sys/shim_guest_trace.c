// SPDX-License-Identifier: GPL-2.0
#include "shim_guest.h"
#define CREATE_TRACE_POINTS
#include "trace_guest.h"

void avio_trace_sent(const struct device *adapter, u32 queue, u16 tag, u16 lun, u8 opcode, u64 sector)
{
	trace_avio_sent(adapter, queue, tag, lun, opcode, sector);
}

void avio_trace_done(const struct device *adapter, u32 queue, u16 tag, u8 status, u32 bytes)
{
	trace_avio_done(adapter, queue, tag, status, bytes);
}
