"""Converts a download of CelebAMask-HQ to the face world's parquet shards.

    python -m data_prep.celebamask_hq --source CelebAMask-HQ --captions celeba-caption \\
        --partition list_eval_partition.txt --out faces512

What is read (the data sets are for non-commercial research and may not be passed on; nothing is
fetched here):

    CelebAMask-HQ/
        CelebA-HQ-img/{0..29999}.jpg                        1024 px
        CelebAMask-HQ-mask-anno/{0..14}/{00000}_{part}.png    512 px, 2,000 samples a folder
        CelebA-HQ-to-CelebA-mapping.txt                       idx orig_idx orig_file
        CelebAMask-HQ-attribute-anno.txt                      count, names, rows of -1 and 1
    celeba-caption/{0..29999}.txt       Multi-Modal-CelebA-HQ, 10 captions a sample, one a line
    list_eval_partition.txt             CelebA: 0 train, 1 validation, 2 test
    identity_CelebA.txt                 CelebA, optional
    dataset.json                        EG3D cameras, optional

The head poses of CelebAMask-HQ-pose-anno.txt are not needed: cameras come from dataset.json.

What is written is what `dmgi_lib.dataset.FaceDataset` reads, and besides it `report.json`, which
names every sample that was skipped or repaired, and why. What CelebA does not know (shape code,
skin tone, seed, depth) is left out; `celeba_file`, the `classes` of the mask before it was
made smaller and `notes` of repairs are there besides.
"""
