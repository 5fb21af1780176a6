"""Other libraries' loss classes, computed by this package's operators: change one import and keep
the training script.

``from open_clip.loss import ClipLoss`` becomes ``from contrastloss.compat.open_clip import
ClipLoss``. A module here has the names, constructors, defaults, ``forward`` signatures and results
of the library that it is called after. Whatever it does not compute itself, it hands to the
library's own class, and says so in the log once; without that library it raises an error.

================================  ==================================================================
module                            classes
================================  ==================================================================
:mod:`.open_clip`                 ClipLoss, SigLipLoss, CoCaLoss, DistillClipLoss
:mod:`.sentence_transformers`     MultipleNegativesRankingLoss,
                                  MultipleNegativesSymmetricRankingLoss,
                                  CachedMultipleNegativesRankingLoss, GISTEmbedLoss,
                                  CachedGISTEmbedLoss, BatchAllTripletLoss,
                                  BatchHardTripletLoss, BatchSemiHardTripletLoss
:mod:`.pytorch_metric_learning`   NTXentLoss, SupConLoss, MultiSimilarityLoss, CircleLoss,
                                  ContrastiveLoss, TripletMarginLoss; BatchHardMiner,
                                  MultiSimilarityMiner, PairMarginMiner, TripletMarginMiner
:mod:`.lightly`                   NTXentLoss, DirectCLRLoss, DCLLoss, DCLWLoss, MemoryBankModule;
                                  BarlowTwinsLoss, VICRegLoss, KoLeoLoss, HypersphereLoss,
                                  NegativeCosineSimilarity, SymNegCosineSimilarityLoss;
                                  SwaVLoss, DINOLoss
:mod:`.solo_learn`                simclr_loss_func, mocov2plus_loss_func, barlow_loss_func,
                                  vicreg_loss_func, byol_loss_func
:mod:`.info_nce`                  InfoNCE, info_nce
:mod:`.supcontrast`               SupConLoss
:mod:`.grad_cache`                SimpleContrastiveLoss, DistributedContrastiveLoss
================================  ==================================================================

No module is imported with the package. docs/migration.md has a table for each library.
"""
