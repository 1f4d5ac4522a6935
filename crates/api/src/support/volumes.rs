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
            ("configMap", Served("pod::volume_config_map")),
            ("csi", Refused(LATER)),
            ("downwardAPI", Served("pod::volume_downward_api")),
            ("emptyDir", Served("pod::volume_empty_dir")),
            ("ephemeral", Refused(LATER)),
            ("fc", Refused(LATER)),
            ("flexVolume", Refused(LATER)),
            ("flocker", Refused(LATER)),
            ("gcePersistentDisk", Refused(LATER)),
            ("gitRepo", Refused("clone into an emptyDir from an init container")),
            ("glusterfs", Refused(LATER)),
            ("hostPath", Served("pod::volume_host_path")),
            ("image", Refused("copy from an init container of that image into an emptyDir")),
            ("iscsi", Refused(LATER)),
            ("name", Served("pod::volumes")),
            ("nfs", Refused(LATER)),
            ("persistentVolumeClaim", Refused(LATER)),
            ("photonPersistentDisk", Refused(LATER)),
            ("portworxVolume", Refused(LATER)),
            ("projected", Served("pod::volume_projected")),
            ("quobyte", Refused(LATER)),
            ("rbd", Refused(LATER)),
            ("scaleIO", Refused(LATER)),
            ("secret", Served("pod::volume_secret")),
            ("storageos", Refused(LATER)),
            ("vsphereVolume", Refused(LATER)),
        ],
    ),
    (
        "api.core.v1.EmptyDirVolumeSource",
        &[("medium", Served("pod::empty_dir_memory")), ("sizeLimit", Served("pod::empty_dir_size_limit"))],
    ),
    (
        "api.core.v1.HostPathVolumeSource",
        &[("path", Served("pod::volume_host_path")), ("type", Served("pod::host_path_type"))],
    ),
    (
        "api.core.v1.ConfigMapVolumeSource",
        &[
            ("defaultMode", Served("pod::config_map_mode")),
            ("items", Served("pod::config_map_items")),
            ("name", Served("pod::volume_config_map")),
            ("optional", Served("pod::config_map_optional")),
        ],
    ),
    (
        "api.core.v1.SecretVolumeSource",
        &[
            ("defaultMode", Served("pod::secret_mode")),
            ("items", Served("pod::secret_items")),
            ("optional", Served("pod::secret_optional")),
            ("secretName", Served("pod::volume_secret")),
        ],
    ),
    (
        "api.core.v1.KeyToPath",
        &[
            ("key", Served("pod::config_map_items")),
            ("mode", Served("pod::config_map_item_mode")),
            ("path", Served("pod::config_map_items")),
        ],
    ),
    (
        "api.core.v1.DownwardAPIVolumeSource",
        &[("defaultMode", Served("pod::downward_api_mode")), ("items", Served("pod::volume_downward_api"))],
    ),
    (
        "api.core.v1.DownwardAPIVolumeFile",
        &[
            ("fieldRef", Served("pod::volume_downward_api")),
            ("mode", Served("pod::downward_api_item_mode")),
            ("path", Served("pod::volume_downward_api")),
            ("resourceFieldRef", Served("pod::downward_api_resources")),
        ],
    ),
    (
        "api.core.v1.ProjectedVolumeSource",
        &[("defaultMode", Served("pod::projected_mode")), ("sources", Served("pod::volume_projected"))],
    ),
    (
        "api.core.v1.VolumeProjection",
        &[
            ("clusterTrustBundle", Refused(PLAIN)),
            ("configMap", Served("pod::projected_config_map")),
            ("downwardAPI", Served("pod::projected_downward_api")),
            ("podCertificate", Refused(PLAIN)),
            ("secret", Served("pod::projected_secret")),
            ("serviceAccountToken", Served("pod::projected_token")),
        ],
    ),
    (
        "api.core.v1.ConfigMapProjection",
        &[
            ("items", Served("pod::projected_config_map_items")),
            ("name", Served("pod::projected_config_map")),
            ("optional", Served("pod::projected_config_map_optional")),
        ],
    ),
    (
        "api.core.v1.SecretProjection",
        &[
            ("items", Served("pod::projected_secret_items")),
            ("name", Served("pod::projected_secret")),
            ("optional", Served("pod::projected_secret_optional")),
        ],
    ),
    ("api.core.v1.DownwardAPIProjection", &[("items", Served("pod::projected_downward_api"))]),
    (
        "api.core.v1.ServiceAccountTokenProjection",
        &[
            ("audience", Served("pod::projected_token_audience")),
            ("expirationSeconds", Served("pod::projected_token_expiration")),
            ("path", Served("pod::projected_token")),
        ],
    ),
];
