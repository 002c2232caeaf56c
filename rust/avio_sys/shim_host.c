// SPDX-License-Identifier: GPL-2.0
#include "shim_host.h"
#include <linux/blk-mq.h>
#include <linux/debugfs.h>
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/highmem.h>
#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/pagemap.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>
#include <linux/sched/vhost_task.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <linux/wait_bit.h>

/* What a sleep may last longer, so that wake-ups can come together. */
#define AVIO_SLACK_NS 20000

struct block_device *avio_file_bdev(struct file *file)
{
	if (!S_ISBLK(file_inode(file)->i_mode) || !(file->f_mode & FMODE_READ))
		return NULL;
	return file_bdev(file);
}

bool avio_bdev_forget_cache(struct block_device *bdev)
{
	invalidate_bdev(bdev);
	return !filemap_range_needs_writeback(bdev->bd_mapping, 0, LLONG_MAX);
}

bool avio_file_writable(const struct file *file)
{
	return file->f_mode & FMODE_WRITE;
}

u64 avio_bdev_sectors(struct block_device *bdev)
{
	return bdev_nr_sectors(bdev);
}

u32 avio_bdev_logical_block(struct block_device *bdev)
{
	return bdev_logical_block_size(bdev);
}

u32 avio_bdev_physical_block(struct block_device *bdev)
{
	return bdev_physical_block_size(bdev);
}

u32 avio_bdev_dma_alignment(struct block_device *bdev)
{
	return bdev_dma_alignment(bdev);
}

bool avio_bdev_read_only(struct block_device *bdev)
{
	return bdev_read_only(bdev);
}

/*
 * What is made of other devices (dm, md) may get one with a cache at any time. A flush that none needs ends in the block
 * layer, and so does a request to write through.
 */
static bool may_get_cache(struct block_device *bdev)
{
	return !queue_is_mq(bdev_get_queue(bdev));
}

bool avio_bdev_write_cache(struct block_device *bdev)
{
	return bdev_write_cache(bdev) || may_get_cache(bdev);
}

bool avio_bdev_zoned(struct block_device *bdev)
{
	return bdev_is_zoned(bdev);
}

bool avio_bdev_fua(struct block_device *bdev)
{
	return bdev_fua(bdev) || may_get_cache(bdev);
}

bool avio_bdev_rotational(struct block_device *bdev)
{
	return bdev_rot(bdev);
}

bool avio_bdev_stable_writes(struct block_device *bdev)
{
	return bdev_stable_writes(bdev);
}

u32 avio_bdev_io_min(struct block_device *bdev)
{
	return bdev_io_min(bdev);
}

u32 avio_bdev_io_opt(struct block_device *bdev)
{
	return bdev_io_opt(bdev);
}

bool avio_bdev_nowait(struct block_device *bdev)
{
	return bdev_nowait(bdev);
}

/*
 * A driver that may sleep over a request does not say so where it says that it knows REQ_NOWAIT. Its tag set goes when the
 * device does, which may still be open then, but not while somebody is in the queue.
 */
bool avio_bdev_blocking(struct block_device *bdev)
{
	struct request_queue *queue = bdev_get_queue(bdev);
	bool blocking = true;

	if (percpu_ref_tryget_live(&queue->q_usage_counter)) {
		blocking = queue->tag_set && queue->tag_set->flags & BLK_MQ_F_BLOCKING;
		percpu_ref_put(&queue->q_usage_counter);
	}
	return blocking;
}

u32 avio_bdev_max_discard(struct block_device *bdev)
{
	return bdev_max_discard_sectors(bdev);
}

u32 avio_bdev_discard_granularity(struct block_device *bdev)
{
	return bdev_discard_granularity(bdev);
}

u32 avio_bdev_max_secure_erase(struct block_device *bdev)
{
	return bdev_max_secure_erase_sectors(bdev);
}

u32 avio_bdev_max_write_zeroes(struct block_device *bdev)
{
	return bdev_write_zeroes_sectors(bdev);
}

struct bio *avio_bio_make(struct bio *own, struct bio_vec *table, struct block_device *bdev, u16 vecs, u32 opf,
			  u64 sector, u32 size, void (*end_io)(struct bio *bio), void *private)
{
	struct bio *bio = own;

	if (own)
		bio_init(own, bdev, table, vecs, (__force blk_opf_t)opf);
	else
		bio = bio_alloc(bdev, vecs, (__force blk_opf_t)opf, GFP_NOIO);
	bio->bi_iter.bi_sector = sector;
	bio->bi_iter.bi_size = size;
	bio->bi_end_io = end_io;
	bio->bi_private = private;
	return bio;
}

bool avio_bio_add_frame(struct bio *bio, u64 frame, u32 len, u32 offset)
{
	return bio_add_page(bio, pfn_to_page(frame), len, offset) == len;
}

long avio_pin(u64 user_addr, u32 pages, bool write, u64 *frames)
{
	/* The frame numbers replace the page pointers, place by place. */
	struct page **list = (struct page **)frames;
	long got, i;

	BUILD_BUG_ON(sizeof(*list) != sizeof(*frames));
	cond_resched();
	if (fatal_signal_pending(current))
		return -EINTR;
	got = pin_user_pages_fast(user_addr, pages, FOLL_LONGTERM | (write ? FOLL_WRITE : 0), list);
	for (i = 0; i < got; i++)
		frames[i] = page_to_pfn(list[i]);
	return got;
}

void avio_unpin(u64 frame, u64 pages, bool dirty)
{
	cond_resched();
	unpin_user_page_range_dirty_lock(pfn_to_page(frame), pages, dirty);
}

void avio_copy_from_frame(void *to, u64 frame, u32 offset, u32 len)
{
	for (; len; frame++, offset = 0) {
		u32 part = min_t(u32, len, PAGE_SIZE - offset);

		memcpy_from_page(to, pfn_to_page(frame), offset, part);
		to += part;
		len -= part;
	}
}

void *avio_map_frames(const u64 *frames, u32 count)
{
	struct page **list = kvmalloc_array(count, sizeof(*list), GFP_KERNEL);
	void *addr;
	u32 i;

	if (!list)
		return NULL;
	for (i = 0; i < count; i++)
		list[i] = pfn_to_page(frames[i]);
	addr = vmap(list, count, VM_MAP, PAGE_KERNEL);
	for (i = 0; addr && i < count; i++)
		get_page(list[i]);
	kvfree(list);
	return addr;
}

void avio_unmap_frames(void *addr, const u64 *frames, u32 count)
{
	u32 i;

	vunmap(addr);
	for (i = 0; i < count; i++)
		put_page(pfn_to_page(frames[i]));
}

void avio_wait_zero(atomic_t *counter)
{
	wait_var_event(counter, atomic_read_acquire(counter) == 0);
}

void avio_dec_and_wake(atomic_t *counter)
{
	atomic_dec_and_wake_up(counter);
}

void *avio_task_start(bool (*fn)(void *arg), void (*killed)(void *arg), void *arg, void **slot, const char *name)
{
	struct vhost_task *task = vhost_task_create(fn, killed, arg, name);

	if (!IS_ERR(task)) {
		*slot = task;
		vhost_task_start(task);
	}
	return task;
}

void avio_task_stop(void *task)
{
	vhost_task_stop(task);
}

void avio_task_wake(void *task)
{
	vhost_task_wake(task);
}

void avio_set_running(void)
{
	__set_current_state(TASK_RUNNING);
}

void avio_yield(void)
{
	cond_resched();
}

void avio_step_aside(void)
{
	yield();
}

/* The caller has set its state before it found nothing to do. */
bool avio_sleep_elapsed(u64 ns)
{
	ktime_t time = ns_to_ktime(ns);

	return schedule_hrtimeout_range(&time, AVIO_SLACK_NS, HRTIMER_MODE_REL) == 0;
}

u64 avio_now(void)
{
	return ktime_get_ns();
}

bool avio_alone(void)
{
	return !need_resched() && !signal_pending(current) && single_task_running();
}

bool avio_nap_killed(u64 ns)
{
	ktime_t time = ns_to_ktime(ns);

	__set_current_state(TASK_KILLABLE);
	schedule_hrtimeout_range(&time, AVIO_SLACK_NS, HRTIMER_MODE_REL);
	return fatal_signal_pending(current);
}

struct avio_debug {
	struct dentry *dentry;
	void (*show)(struct seq_file *m, void *arg);
	void *arg;
};

static struct dentry *avio_debug_dir;

static int avio_debug_show(struct seq_file *m, void *unused)
{
	struct avio_debug *file = m->private;

	file->show(m, file->arg);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(avio_debug);

void avio_debug_init(const char *name)
{
	avio_debug_dir = debugfs_create_dir(name, NULL);
}

void avio_debug_exit(void)
{
	debugfs_remove(avio_debug_dir);
}

void *avio_debug_create(const char *name, void (*show)(struct seq_file *m, void *arg), void *arg)
{
	struct avio_debug *file = kmalloc(sizeof(*file), GFP_KERNEL);

	if (!file)
		return NULL;
	file->show = show;
	file->arg = arg;
	file->dentry = debugfs_create_file(name, 0400, avio_debug_dir, file, &avio_debug_fops);
	return file;
}

void avio_debug_remove(void *shown)
{
	struct avio_debug *file = shown;

	debugfs_remove(file->dentry);
	kfree(file);
}

struct avio_kick {
	poll_table table;
	wait_queue_entry_t wait;
	wait_queue_head_t *head;
	struct file *file;
	void (*fn)(void *arg);
	void *arg;
};

static int avio_kick_wake(wait_queue_entry_t *wait, unsigned int mode, int sync, void *key)
{
	struct avio_kick *kick = container_of(wait, struct avio_kick, wait);

	if (key_to_poll(key) & EPOLLIN)
		kick->fn(kick->arg);
	return 0;
}

static void avio_kick_queue(struct file *file, wait_queue_head_t *head, poll_table *table)
{
	struct avio_kick *kick = container_of(table, struct avio_kick, table);

	kick->head = head;
	add_wait_queue(head, &kick->wait);
}

void *avio_kick_attach(struct file *eventfd, void (*fn)(void *arg), void *arg)
{
	struct avio_kick *kick = kzalloc(sizeof(*kick), GFP_KERNEL);

	if (!kick)
		return ERR_PTR(-ENOMEM);
	kick->file = get_file(eventfd);
	kick->fn = fn;
	kick->arg = arg;
	init_waitqueue_func_entry(&kick->wait, avio_kick_wake);
	init_poll_funcptr(&kick->table, avio_kick_queue);
	if (vfs_poll(eventfd, &kick->table) & EPOLLIN)
		fn(arg);
	return kick;
}

void avio_kick_detach(void *attached)
{
	struct avio_kick *kick = attached;

	if (kick->head)
		remove_wait_queue(kick->head, &kick->wait);
	fput(kick->file);
	kfree(kick);
}
