"""First tables. Metrics and their archive are partitioned by month from the start; six months are made ahead."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
ASSET_STATUS = "status IN ('queued', 'processing', 'ready', 'failed')"
TRAINING_STATUS = (
    "status IN ('pending', 'queued', 'running', 'pausing', 'paused', 'stopping', 'completed', 'failed', 'cancelled')"
)

# The month before is made as well: a clock that is behind must not lose metrics on the first of a month.
MAKE_PARTITIONS = """
DO $$
DECLARE
    month date := (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month')::date;
    parent text;
BEGIN
    FOR offset_months IN 0..7 LOOP
        FOREACH parent IN ARRAY ARRAY['training_metrics', 'training_metrics_archive'] LOOP
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                parent || '_' || to_char(month, '"y"YYYY"m"MM'),
                parent,
                to_char(month, 'YYYY-MM-DD') || ' 00:00:00+00',
                to_char(month + interval '1 month', 'YYYY-MM-DD') || ' 00:00:00+00'
            );
        END LOOP;
        month := (month + interval '1 month')::date;
    END LOOP;
END
$$
"""


def _times() -> list[sa.Column]:
    return [
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
    ]


def _metric_columns() -> list[sa.Column]:
    return [
        sa.Column("training_id", sa.Text, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("layer_idx", sa.SmallInteger),
        sa.Column("timestamp", TIMESTAMP, nullable=False),
        sa.Column("loss", sa.Double),
        sa.Column("loss_reconstructed", sa.Double),
        sa.Column("l0_sparsity", sa.Double),
        sa.Column("l1_sparsity", sa.Double),
        sa.Column("fvu", sa.Double),
        sa.Column("learning_rate", sa.Double),
        sa.Column("grad_norm", sa.Double),
        sa.Column("gpu_memory_used_mb", sa.Double),
        sa.Column("samples_per_second", sa.Double),
        sa.Column("dead_neurons", sa.Integer),
    ]


def upgrade() -> None:
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("token_hash", sa.Text, nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("expires_at", TIMESTAMP),
        sa.Column("revoked_at", TIMESTAMP),
        sa.Column("last_used_at", TIMESTAMP),
        sa.PrimaryKeyConstraint("id", name="pk_api_tokens"),
        sa.UniqueConstraint("token_hash", name="uq_api_tokens_token_hash"),
    )
    op.create_table(
        "models",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("architecture", sa.Text),
        sa.Column("d_model", sa.Integer),
        sa.Column("n_layers", sa.Integer),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("description", sa.Text),
        *_times(),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.UniqueConstraint("name", name="uq_models_name"),
        sa.CheckConstraint(ASSET_STATUS, name=op.f("ck_models_status")),
    )
    op.create_index("ix_models_created_at_id", "models", ["created_at", "id"])
    op.create_table(
        "datasets",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("rows", sa.BigInteger),
        sa.Column("d_model", sa.Integer),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("description", sa.Text),
        sa.Column("model_id", sa.Text),
        sa.Column("text_dataset_id", sa.Text),
        sa.Column("extraction", JSONB),
        sa.Column("progress", sa.Double),
        sa.Column("attempts", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.Column("claim", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("request_id", sa.Text),
        sa.Column("heartbeat_at", TIMESTAMP),
        *_times(),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sa.UniqueConstraint("name", name="uq_datasets_name"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_datasets_model_id_models"),
        sa.ForeignKeyConstraint(["text_dataset_id"], ["datasets.id"], name="fk_datasets_text_dataset_id_datasets"),
        sa.CheckConstraint(ASSET_STATUS, name=op.f("ck_datasets_status")),
        sa.CheckConstraint("kind IN ('text', 'activations')", name=op.f("ck_datasets_kind")),
    )
    op.create_index("ix_datasets_created_at_id", "datasets", ["created_at", "id"])
    op.create_table(
        "trainings",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("dataset_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("hyperparameters", JSONB, nullable=False),
        sa.Column("step", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.Column("total_steps", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("error_code", sa.Text),
        sa.Column("attempts", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.Column("claim", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("request_id", sa.Text),
        sa.Column("heartbeat_at", TIMESTAMP),
        sa.Column("queued_at", TIMESTAMP),
        sa.Column("started_at", TIMESTAMP),
        sa.Column("ended_at", TIMESTAMP),
        sa.Column("last_metric", JSONB),
        *_times(),
        sa.PrimaryKeyConstraint("id", name="pk_trainings"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_trainings_dataset_id_datasets"),
        sa.CheckConstraint(TRAINING_STATUS, name=op.f("ck_trainings_status")),
    )
    op.create_index("ix_trainings_created_at_id", "trainings", ["created_at", "id"])
    op.create_index(
        "ix_trainings_live",
        "trainings",
        ["status", "heartbeat_at"],
        postgresql_where=sa.text("status IN ('queued', 'running', 'pausing', 'stopping')"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("training_id", sa.Text, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_checkpoints"),
        sa.UniqueConstraint("training_id", "step", name="uq_checkpoints_training_id_step"),
        sa.ForeignKeyConstraint(
            ["training_id"], ["trainings.id"], name="fk_checkpoints_training_id_trainings", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "features",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("training_id", sa.Text, nullable=False),
        sa.Column("index", sa.Integer, nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("frequency", sa.Double),
        sa.Column("max_activation", sa.Double),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_features"),
        sa.UniqueConstraint("training_id", "index", name="uq_features_training_id_index"),
        sa.ForeignKeyConstraint(
            ["training_id"], ["trainings.id"], name="fk_features_training_id_trainings", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "feature_activations",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("feature_id", sa.Text, nullable=False),
        sa.Column("activation", sa.Double, nullable=False),
        sa.Column("position", sa.Integer),
        sa.Column("context", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_feature_activations"),
        sa.ForeignKeyConstraint(
            ["feature_id"], ["features.id"], name="fk_feature_activations_feature_id_features", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_feature_activations_feature_id", "feature_activations", ["feature_id"])
    _create_metric_tables()


def _create_metric_tables() -> None:
    op.execute("CREATE SEQUENCE training_metrics_id_seq AS bigint")
    next_id = sa.text("nextval('training_metrics_id_seq')")
    for table, default in (("training_metrics", next_id), ("training_metrics_archive", None)):
        op.create_table(
            table,
            sa.Column("id", sa.BigInteger, server_default=default, nullable=False),
            *_metric_columns(),
            sa.PrimaryKeyConstraint("timestamp", "id", name=f"pk_{table}"),
            postgresql_partition_by="RANGE (timestamp)",
        )
        op.create_index(f"ix_{table}_training_id_step", table, ["training_id", "step"])
    op.execute(MAKE_PARTITIONS)


def downgrade() -> None:
    for table in (
        "training_metrics_archive",
        "training_metrics",
        "feature_activations",
        "features",
        "checkpoints",
        "trainings",
        "datasets",
        "models",
        "api_tokens",
    ):
        op.drop_table(table)
    op.execute("DROP SEQUENCE training_metrics_id_seq")
