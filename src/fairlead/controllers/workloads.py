"""The controllers of kinds that a cluster does not need to start, to be loaded when it has.

Invariant: each of them decides by its own kind's objects, most of which are followed later, and by what the caches hold
then: none needs to have seen the events before.
"""

from __future__ import annotations

from fairlead.controllers.cronjob import CronJobController
from fairlead.controllers.daemonset import DaemonSetController
from fairlead.controllers.disruption import DisruptionController
from fairlead.controllers.horizontal import HorizontalController
from fairlead.controllers.job import JobController
from fairlead.controllers.persistentvolumes import PersistentVolumeController
from fairlead.controllers.priorityclasses import PriorityClassController
from fairlead.controllers.replicationcontroller import ReplicationControllerController
from fairlead.controllers.resourcequota import ResourceQuotaController
from fairlead.controllers.statefulset import StatefulSetController
from fairlead.controllers.tokensecrets import TokenSecretController
from fairlead.controllers.volumeprotection import EphemeralVolumeController, VolumeProtectionController

CONTROLLERS = (
    StatefulSetController,
    DaemonSetController,
    ReplicationControllerController,
    JobController,
    CronJobController,
    DisruptionController,
    PriorityClassController,
    ResourceQuotaController,
    HorizontalController,
    PersistentVolumeController,
    VolumeProtectionController,
    EphemeralVolumeController,
    TokenSecretController,
)
