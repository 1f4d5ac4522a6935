//! The part of [`super`]'s table that is about volumes.

use super::{
    Support::{Refused, Served},
    Table,
};

const LATER: &str = "use emptyDir, or hostPath where the namespace may; volumes that outlive their pod are yet to come";
const PLAIN: &str = "use configMap, secret or downwardAPI";

pub(super) const TABLES: &[Table] = &[
    (
        "api.core.v1.Volume",
        &[
            ("awsElasticBlockStore", Refused(LATER)),
            ("azureDisk", Refused(LATER)),
            ("azureFile", Refused(LATER)),
            ("cephfs", Refused(LATER)),
            ("cinder", Refused(LATER)),
            ("configMap", Served("volumes::projections")),
            ("csi", Refused(LATER)),
            ("downwardAPI", Served("volumes::projections")),
            ("emptyDir", Served("volumes::mounts")),
            ("ephemeral", Refused(LATER)),
            ("fc", Refused(LATER)),
            ("flexVolume", Refused(LATER)),
            ("flocker", Refused(LATER)),
            ("gcePersistentDisk", Refused(LATER)),
            ("gitRepo", Refused("clone into an emptyDir from an init container")),
            ("glusterfs", Refused(LATER)),
            ("hostPath", Served("volumes::mounts")),
            ("image", Refused("copy from an init container of that image into an emptyDir")),
            ("iscsi", Refused(LATER)),
            ("name", Served("volumes::projections")),
            ("nfs", Refused(LATER)),
            ("persistentVolumeClaim", Refused(LATER)),
            ("photonPersistentDisk", Refused(LATER)),
            ("portworxVolume", Refused(LATER)),
            ("projected", Served("volumes::projections")),
            ("quobyte", Refused(LATER)),
            ("rbd", Refused(LATER)),
            ("scaleIO", Refused(LATER)),
            ("secret", Served("volumes::projections")),
            ("storageos", Refused(LATER)),
            ("vsphereVolume", Refused(LATER)),
        ],
    ),
    (
        "api.core.v1.EmptyDirVolumeSource",
        &[("medium", Served("volumes::mounts")), ("sizeLimit", Served("volumes::mounts"))],
    ),
    ("api.core.v1.HostPathVolumeSource", &[("path", Served("volumes::mounts")), ("type", Served("volumes::mounts"))]),
    (
        "api.core.v1.ConfigMapVolumeSource",
        &[
            ("defaultMode", Served("volumes::projections")),
            ("items", Served("volumes::projections")),
            ("name", Served("volumes::projections")),
            ("optional", Served("volumes::projections")),
        ],
    ),
    (
        "api.core.v1.SecretVolumeSource",
        &[
            ("defaultMode", Served("volumes::projections")),
            ("items", Served("volumes::projections")),
            ("optional", Served("volumes::projections")),
            ("secretName", Served("volumes::projections")),
        ],
    ),
    (
        "api.core.v1.KeyToPath",
        &[
            ("key", Served("volumes::projections")),
            ("mode", Served("volumes::projections")),
            ("path", Served("volumes::projections")),
        ],
    ),
    (
        "api.core.v1.DownwardAPIVolumeSource",
        &[("defaultMode", Served("volumes::projections")), ("items", Served("volumes::projections"))],
    ),
    (
        "api.core.v1.DownwardAPIVolumeFile",
        &[
            ("fieldRef", Served("volumes::projections")),
            ("mode", Served("volumes::projections")),
            ("path", Served("volumes::projections")),
            ("resourceFieldRef", Served("volumes::projections")),
        ],
    ),
    (
        "api.core.v1.ProjectedVolumeSource",
        &[("defaultMode", Served("volumes::projections")), ("sources", Served("volumes::projections"))],
    ),
    (
        "api.core.v1.VolumeProjection",
        &[
            ("clusterTrustBundle", Refused(PLAIN)),
            ("configMap", Served("volumes::projections")),
            ("downwardAPI", Served("volumes::projections")),
            ("podCertificate", Refused(PLAIN)),
            ("secret", Served("volumes::projections")),
            ("serviceAccountToken", Served("volumes::tokens")),
        ],
    ),
    (
        "api.core.v1.ConfigMapProjection",
        &[
            ("items", Served("volumes::projections")),
            ("name", Served("volumes::projections")),
            ("optional", Served("volumes::projections")),
        ],
    ),
    (
        "api.core.v1.SecretProjection",
        &[
            ("items", Served("volumes::projections")),
            ("name", Served("volumes::projections")),
            ("optional", Served("volumes::projections")),
        ],
    ),
    ("api.core.v1.DownwardAPIProjection", &[("items", Served("volumes::projections"))]),
    (
        "api.core.v1.ServiceAccountTokenProjection",
        &[
            ("audience", Served("volumes::tokens")),
            ("expirationSeconds", Served("volumes::tokens")),
            ("path", Served("volumes::tokens")),
        ],
    ),
];
