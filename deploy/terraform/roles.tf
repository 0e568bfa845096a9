data "aws_caller_identity" "this" {}

data "aws_partition" "this" {}

locals {
  # The same files that deploy/README.md fills in by hand.
  documents = {
    for file in fileset("${path.module}/../iam", "*.json") :
    trimsuffix(file, ".json") => templatefile("${path.module}/../iam/${file}", {
      account        = data.aws_caller_identity.this.account_id
      input_bucket   = coalesce(var.input_bucket, var.bucket)
      input_prefix   = var.input_prefix
      job_name       = var.name
      kms_key_arn    = var.kms_key_arn == null ? "" : var.kms_key_arn
      output_bucket  = var.bucket
      output_prefix  = var.output_prefix
      partition      = data.aws_partition.this.partition
      region         = var.region
      repository     = var.name
      sagemaker_role = "${var.name}-sagemaker"
    })
  }

  # Documents by role: what each may do, and what some accounts add.
  sagemaker = concat(
    ["sagemaker-policy"],
    var.kms_key_arn == null ? [] : ["kms-policy", "kms-volume-policy"],
    var.vpc ? ["vpc-policy"] : [],
  )
  ec2 = var.ec2 ? concat(["ec2-policy"], var.kms_key_arn == null ? [] : ["kms-policy"]) : []
}

resource "aws_iam_role" "sagemaker" {
  name                 = "${var.name}-sagemaker"
  description          = "What a training job of ${var.name} may do"
  assume_role_policy   = local.documents["sagemaker-trust"]
  permissions_boundary = var.permissions_boundary
}

resource "aws_iam_role_policy" "sagemaker" {
  for_each = toset(local.sagemaker)

  role   = aws_iam_role.sagemaker.name
  name   = each.key
  policy = local.documents[each.key]
}

# Attached to nobody: you choose who may launch and who may push.
resource "aws_iam_policy" "launcher" {
  name        = "${var.name}-launcher"
  description = "mrigan launch and mrigan fetch"
  policy      = local.documents["launcher-policy"]
}

resource "aws_iam_policy" "push" {
  name        = "${var.name}-push"
  description = "deploy/build_and_push.sh"
  policy      = local.documents["push-policy"]
}

# Whoever fetches or seeds an encrypted bucket needs its key too.
resource "aws_iam_policy" "key" {
  count = var.kms_key_arn == null ? 0 : 1

  name        = "${var.name}-key"
  description = "The key of the bucket of ${var.name}, through S3 only"
  policy      = local.documents["kms-policy"]
}

resource "aws_iam_role" "ec2" {
  count = var.ec2 ? 1 : 0

  name                 = "${var.name}-ec2"
  description          = "What an instance that trains ${var.name} may do"
  assume_role_policy   = local.documents["ec2-trust"]
  permissions_boundary = var.permissions_boundary
}

resource "aws_iam_role_policy" "ec2" {
  for_each = toset(local.ec2)

  role   = aws_iam_role.ec2[0].name
  name   = each.key
  policy = local.documents[each.key]
}

resource "aws_iam_instance_profile" "ec2" {
  count = var.ec2 ? 1 : 0

  name = "${var.name}-ec2"
  role = aws_iam_role.ec2[0].name
}
