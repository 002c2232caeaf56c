/* SPDX-License-Identifier: GPL-2.0 */
/* C that Rust cannot call itself (inline functions, macros, callbacks in C types), for the host modules. No logic. */
#ifndef AVIO_SHIM_HOST_H
#define AVIO_SHIM_HOST_H
#include <linux/atomic.h>
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/seq_file.h>

/* Block devices. */
struct block_device *avio_file_bdev(struct file *file);
bool avio_bdev_forget_cache(struct block_device *bdev);
bool avio_file_writable(const struct file *file);
u64 avio_bdev_sectors(struct block_device *bdev);
u32 avio_bdev_logical_block(struct block_device *bdev);
u32 avio_bdev_physical_block(struct block_device *bdev);
u32 avio_bdev_dma_alignment(struct block_device *bdev);
bool avio_bdev_read_only(struct block_device *bdev);
bool avio_bdev_write_cache(struct block_device *bdev);
bool avio_bdev_zoned(struct block_device *bdev);
bool avio_bdev_fua(struct block_device *bdev);
bool avio_bdev_rotational(struct block_device *bdev);
bool avio_bdev_stable_writes(struct block_device *bdev);
u32 avio_bdev_io_min(struct block_device *bdev);
u32 avio_bdev_io_opt(struct block_device *bdev);
bool avio_bdev_nowait(struct block_device *bdev);
bool avio_bdev_blocking(struct block_device *bdev);
u32 avio_bdev_max_discard(struct block_device *bdev);
u32 avio_bdev_discard_granularity(struct block_device *bdev);
u32 avio_bdev_max_secure_erase(struct block_device *bdev);
u32 avio_bdev_max_write_zeroes(struct block_device *bdev);

/* Bios. */
/* Makes a bio with room for `vecs` vectors: in `own` with this table, or a new one if `own` is null. */
struct bio *avio_bio_make(struct bio *own, struct bio_vec *table, struct block_device *bdev, u16 vecs, u32 opf,
			  u64 sector, u32 size, void (*end_io)(struct bio *bio), void *private);
bool avio_bio_add_frame(struct bio *bio, u64 frame, u32 len, u32 offset);

/* Cgroups that bios belong to. */
void *avio_cgroup_get(int fd);
void *avio_cgroup_current(void);
void avio_cgroup_put(void *css);
void avio_bio_charge(struct bio *bio, void *css);

/* Submitting bios where it is no harm to sleep. */
void *avio_deferred_new(void *css);
void avio_deferred_drop(void *deferred);
bool avio_deferred_busy(const void *deferred);
/* Takes a bio that was not submitted yet, or one that was refused and has its device, sector and operation again. */
void avio_deferred_submit(void *deferred, struct bio *bio);

/* Memory. */
long avio_pin(u64 user_addr, u32 pages, bool write, u64 *frames);
void avio_unpin(u64 frame, u64 pages, bool dirty);
void avio_copy_from_frame(void *to, u64 frame, u32 offset, u32 len);
void *avio_map_frames(const u64 *frames, u32 count);
void avio_unmap_frames(void *addr, const u64 *frames, u32 count);

/* Counting what is in flight. */
void avio_wait_zero(atomic_t *counter);
void avio_dec_and_wake(atomic_t *counter);

/* Worker threads. */
void *avio_task_start(bool (*fn)(void *arg), void (*killed)(void *arg), void *arg, void **slot, const char *name);
void avio_task_stop(void *task);
void avio_task_wake(void *task);
void avio_set_running(void);
void avio_yield(void);
void avio_step_aside(void);
bool avio_sleep_elapsed(u64 ns);

/* Time, and what a thread may do with it. */
u64 avio_now(void);
bool avio_alone(void);
bool avio_nap_killed(u64 ns);

/* What debugfs shows. */
void avio_debug_init(const char *name);
void avio_debug_exit(void);
void *avio_debug_create(const char *name, void (*show)(struct seq_file *m, void *arg), void *arg);
void avio_debug_remove(void *file);

/* Having a virtual processor that is in the host do something before it goes back into its guest: one of the process that has
 * made the visit. */
void *avio_visit_new(void (*fn)(void *arg), void *arg);
bool avio_visit_in_vcpu(void *visit);
unsigned long avio_current(void);
void avio_visit_close(void *visit);
/* Only if it is closed. */
void avio_visit_drop(void *visit);
void avio_visit_exit(void);
/* Only if it is not pending. */
bool avio_visit_queue(void *visit);

/* Trace events (trace_host.h). */
void avio_trace_taken(u32 adapter, u32 queue, u16 tag, u16 lun, u8 opcode, u64 sector);
void avio_trace_submitted(u32 adapter, u32 queue, u16 tag, u32 bytes);
void avio_trace_answered(u32 adapter, u32 queue, u16 tag, u8 status, u32 bytes);

/* Being told of an eventfd's signals. */
void *avio_kick_attach(struct file *eventfd, void (*fn)(void *arg), void *arg);
void avio_kick_detach(void *kick);
#endif
