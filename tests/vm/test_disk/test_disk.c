// SPDX-License-Identifier: GPL-2.0
/*
 * A disk in memory, /dev/erasable, that carries out secure erase: none of the kernel's own drivers for disks without
 * hardware does. For test machines only. What is erased reads as zeros.
 */
#include <linux/blkdev.h>
#include <linux/highmem.h>
#include <linux/module.h>
#include <linux/vmalloc.h>

#define SIZE (16u << 20)
#define MOST_ERASED ((1u << 20) >> SECTOR_SHIFT)

static struct gendisk *disk;
static u8 *contents;

/* Sectors that were erased; for whoever checks that an erase came as one. */
static atomic_t erased = ATOMIC_INIT(0);

static int get_erased(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%d\n", atomic_read(&erased));
}

static const struct kernel_param_ops erased_ops = { .get = get_erased };
module_param_cb(erased, &erased_ops, NULL, 0444);

static void move(struct bio *bio)
{
	u8 *at = contents + (bio->bi_iter.bi_sector << SECTOR_SHIFT);
	struct bvec_iter iter;
	struct bio_vec segment;

	bio_for_each_segment(segment, bio, iter) {
		if (op_is_write(bio_op(bio)))
			memcpy_from_bvec(at, &segment);
		else
			memcpy_to_bvec(&segment, at);
		at += segment.bv_len;
	}
}

/* The block layer has seen that the bio ends on the disk. Nobody has split it by our limits. */
static void erasable_submit_bio(struct bio *bio)
{
	switch (bio_op(bio)) {
	case REQ_OP_READ:
	case REQ_OP_WRITE:
		move(bio);
		break;
	case REQ_OP_SECURE_ERASE:
		if (bio_sectors(bio) > MOST_ERASED) {
			bio->bi_status = BLK_STS_NOTSUPP;
			break;
		}
		memset(contents + (bio->bi_iter.bi_sector << SECTOR_SHIFT), 0, bio->bi_iter.bi_size);
		atomic_add(bio_sectors(bio), &erased);
		break;
	default:
		bio->bi_status = BLK_STS_NOTSUPP;
	}
	bio_endio(bio);
}

static const struct block_device_operations erasable_ops = {
	.owner = THIS_MODULE,
	.submit_bio = erasable_submit_bio,
};

static int __init erasable_init(void)
{
	struct queue_limits limits = { .max_secure_erase_sectors = MOST_ERASED };
	int error = -ENOMEM;

	contents = vzalloc(SIZE);
	if (!contents)
		return error;
	disk = blk_alloc_disk(&limits, NUMA_NO_NODE);
	if (IS_ERR(disk)) {
		error = PTR_ERR(disk);
		goto free;
	}
	strscpy(disk->disk_name, "erasable");
	disk->fops = &erasable_ops;
	set_capacity(disk, SIZE >> SECTOR_SHIFT);
	error = add_disk(disk);
	if (!error)
		return 0;
	put_disk(disk);
free:
	vfree(contents);
	return error;
}

static void __exit erasable_exit(void)
{
	del_gendisk(disk);
	put_disk(disk);
	vfree(contents);
}

module_init(erasable_init);
module_exit(erasable_exit);
MODULE_DESCRIPTION("A disk in memory with secure erase, for test machines");
MODULE_LICENSE("GPL");
