// SPDX-License-Identifier: GPL-2.0
/*
 * A disk in memory, /dev/testdisk, for test machines only. It carries out secure erase, and it keeps a checksum of each
 * sector, made before the data is taken and looked at when it is read: no driver of the kernel's own does either without
 * hardware or more configuration. What is erased reads as zeros.
 */
#include <linux/blkdev.h>
#include <linux/crc32.h>
#include <linux/highmem.h>
#include <linux/module.h>
#include <linux/vmalloc.h>

#define SIZE (16u << 20)
#define SECTORS (SIZE >> SECTOR_SHIFT)
#define MOST_ERASED ((1u << 20) >> SECTOR_SHIFT)

static struct gendisk *disk;
static u8 *contents;
static u32 *checksums;
/* Whoever moves data does so alone. */
static DEFINE_SPINLOCK(moving);

/* Sectors that were erased; for whoever checks that an erase came as one. */
static atomic_t erased = ATOMIC_INIT(0);

static int get_erased(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%d\n", atomic_read(&erased));
}

static const struct kernel_param_ops erased_ops = { .get = get_erased };
module_param_cb(erased, &erased_ops, NULL, 0444);

static u8 *sector_at(sector_t sector)
{
	return contents + (sector << SECTOR_SHIFT);
}

static u32 checksum(const u8 *sector)
{
	return crc32_le(~0, sector, SECTOR_SIZE);
}

static void write_data(struct bio *bio)
{
	sector_t sector = bio->bi_iter.bi_sector;
	u8 *at = sector_at(sector);
	struct bvec_iter iter;
	struct bio_vec segment;

	bio_for_each_segment(segment, bio, iter) {
		u8 *data = bvec_kmap_local(&segment);
		unsigned int done;

		for (done = 0; done < segment.bv_len; done += SECTOR_SIZE)
			checksums[sector++] = checksum(data + done);
		kunmap_local(data);
	}
	bio_for_each_segment(segment, bio, iter) {
		memcpy_from_bvec(at, &segment);
		at += segment.bv_len;
	}
}

static void read_data(struct bio *bio)
{
	sector_t sector = bio->bi_iter.bi_sector;
	u8 *at = sector_at(sector);
	struct bvec_iter iter;
	struct bio_vec segment;

	for (; sector < bio_end_sector(bio); sector++)
		if (checksum(sector_at(sector)) != checksums[sector])
			bio->bi_status = BLK_STS_PROTECTION;
	bio_for_each_segment(segment, bio, iter) {
		memcpy_to_bvec(&segment, at);
		at += segment.bv_len;
	}
}

static void erase(sector_t from, sector_t to)
{
	for (; from < to; from++) {
		memset(sector_at(from), 0, SECTOR_SIZE);
		checksums[from] = checksum(sector_at(from));
	}
}

/* The block layer has seen that the bio ends on the disk. Nobody has split it by our limits. */
static void test_disk_submit_bio(struct bio *bio)
{
	spin_lock(&moving);
	switch (bio_op(bio)) {
	case REQ_OP_READ:
		read_data(bio);
		break;
	case REQ_OP_WRITE:
		write_data(bio);
		break;
	case REQ_OP_SECURE_ERASE:
		if (bio_sectors(bio) > MOST_ERASED) {
			bio->bi_status = BLK_STS_NOTSUPP;
			break;
		}
		erase(bio->bi_iter.bi_sector, bio_end_sector(bio));
		atomic_add(bio_sectors(bio), &erased);
		break;
	default:
		bio->bi_status = BLK_STS_NOTSUPP;
	}
	spin_unlock(&moving);
	bio_endio(bio);
}

static const struct block_device_operations test_disk_ops = {
	.owner = THIS_MODULE,
	.submit_bio = test_disk_submit_bio,
};

static void free_contents(void)
{
	vfree(checksums);
	vfree(contents);
}

static int __init test_disk_init(void)
{
	struct queue_limits limits = {
		.features = BLK_FEAT_STABLE_WRITES,
		.max_secure_erase_sectors = MOST_ERASED,
		.dma_alignment = SECTOR_SIZE - 1,
		.io_min = 8192,
		.io_opt = 65536,
	};
	int error = -ENOMEM;

	contents = vzalloc(SIZE);
	checksums = vmalloc_array(SECTORS, sizeof(*checksums));
	if (!contents || !checksums)
		goto free;
	erase(0, SECTORS);
	disk = blk_alloc_disk(&limits, NUMA_NO_NODE);
	if (IS_ERR(disk)) {
		error = PTR_ERR(disk);
		goto free;
	}
	strscpy(disk->disk_name, "testdisk");
	disk->fops = &test_disk_ops;
	set_capacity(disk, SECTORS);
	error = add_disk(disk);
	if (!error)
		return 0;
	put_disk(disk);
free:
	free_contents();
	return error;
}

static void __exit test_disk_exit(void)
{
	del_gendisk(disk);
	put_disk(disk);
	free_contents();
}

module_init(test_disk_init);
module_exit(test_disk_exit);
MODULE_DESCRIPTION("A disk in memory with secure erase and checksums, for test machines");
MODULE_LICENSE("GPL");
