# `terraform test` in deploy/terraform: needs no credentials, makes nothing.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }

  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
}

variables {
  region = "eu-central-1"
  bucket = "some-runs"
}

run "registry" {
  command = plan

  assert {
    condition     = aws_ecr_repository.image.image_tag_mutability == "IMMUTABLE"
    error_message = "A tag must mean the same image for ever."
  }

  assert {
    condition     = aws_ecr_repository.image.image_scanning_configuration[0].scan_on_push
    error_message = "Images are scanned."
  }

  assert {
    condition     = aws_ecr_repository.image.encryption_configuration[0].encryption_type == "AES256"
    error_message = "Images are encrypted."
  }

  assert {
    condition     = [for rule in jsondecode(aws_ecr_lifecycle_policy.image.policy).rules : rule.selection.countNumber] == [1, 10]
    error_message = "Old images expire."
  }
}

run "bucket" {
  command = plan

  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.runs.block_public_acls,
      aws_s3_bucket_public_access_block.runs.block_public_policy,
      aws_s3_bucket_public_access_block.runs.ignore_public_acls,
      aws_s3_bucket_public_access_block.runs.restrict_public_buckets,
    ])
    error_message = "Nothing is public."
  }

  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.runs.rule).apply_server_side_encryption_by_default).sse_algorithm == "AES256"
    error_message = "Objects are encrypted."
  }

  assert {
    condition     = one(aws_s3_bucket_ownership_controls.runs.rule).object_ownership == "BucketOwnerEnforced"
    error_message = "There are no ACLs."
  }

  assert {
    condition     = one(aws_s3_bucket_versioning.runs.versioning_configuration).status == "Enabled"
    error_message = "A deleted run can be restored."
  }

  assert {
    condition = alltrue([
      one(aws_s3_bucket_lifecycle_configuration.runs.rule).noncurrent_version_expiration[0].noncurrent_days == 7,
      one(aws_s3_bucket_lifecycle_configuration.runs.rule).abort_incomplete_multipart_upload[0].days_after_initiation == 7,
    ])
    error_message = "What nobody sees is not paid for for ever."
  }

  assert {
    condition = jsondecode(aws_s3_bucket_policy.runs.policy).Statement == [{
      Sid       = "EncryptedConnectionsOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = ["arn:aws:s3:::some-runs", "arn:aws:s3:::some-runs/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
    error_message = "Only TLS is let in."
  }
}

run "roles" {
  command = plan

  assert {
    condition     = jsondecode(aws_iam_role.sagemaker.assume_role_policy).Statement[0].Condition.StringEquals["aws:SourceAccount"] == "111122223333"
    error_message = "SageMaker takes the role for this account only."
  }

  assert {
    condition     = keys(aws_iam_role_policy.sagemaker) == ["sagemaker-policy"]
    error_message = "KMS and VPC are allowed to those who use them."
  }

  assert {
    condition     = one([for s in jsondecode(aws_iam_role_policy.sagemaker["sagemaker-policy"].policy).Statement : s if s.Sid == "ReadSlices"]).Resource == "arn:aws:s3:::some-runs/slices/*"
    error_message = "Slices are in the bucket made here unless input_bucket is given."
  }

  assert {
    condition     = one([for s in jsondecode(aws_iam_policy.launcher.policy).Statement : s if s.Sid == "HandRoleToSageMaker"]).Resource == "arn:aws:iam::111122223333:role/${aws_iam_role.sagemaker.name}"
    error_message = "The launcher hands over the role made here."
  }

  assert {
    condition     = one([for s in jsondecode(aws_iam_policy.push.policy).Statement : s if s.Sid == "PushImage"]).Resource == "arn:aws:ecr:eu-central-1:111122223333:repository/${aws_ecr_repository.image.name}"
    error_message = "Images are pushed to the repository made here."
  }

  assert {
    condition     = length(aws_iam_role.ec2) + length(aws_iam_instance_profile.ec2) + length(aws_iam_policy.key) == 0
    error_message = "What nobody asked for is not made."
  }
}

run "everything" {
  command = plan

  variables {
    input_bucket         = "their-slices"
    input_prefix         = "mri/slices"
    kms_key_arn          = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    vpc                  = true
    ec2                  = true
    permissions_boundary = "arn:aws:iam::111122223333:policy/boundary"
  }

  override_resource {
    target          = aws_iam_role.sagemaker
    override_during = plan
    values          = { arn = "arn:aws:iam::111122223333:role/mrigan-sagemaker" }
  }

  assert {
    condition     = keys(aws_iam_role_policy.sagemaker) == ["kms-policy", "kms-volume-policy", "sagemaker-policy", "vpc-policy"]
    error_message = "The role may use the key and the network."
  }

  assert {
    condition     = keys(aws_iam_role_policy.ec2) == ["ec2-policy", "kms-policy"]
    error_message = "The instance may use the key."
  }

  assert {
    condition     = jsondecode(aws_iam_role.ec2[0].assume_role_policy).Statement[0].Principal.Service == "ec2.amazonaws.com"
    error_message = "Instances take the role."
  }

  assert {
    condition     = one([for s in jsondecode(aws_iam_role_policy.sagemaker["sagemaker-policy"].policy).Statement : s if s.Sid == "ReadSlices"]).Resource == "arn:aws:s3:::their-slices/mri/slices/*"
    error_message = "Slices are in the bucket given."
  }

  assert {
    condition     = one([for s in jsondecode(aws_iam_role_policy.ec2["ec2-policy"].policy).Statement : s if s.Sid == "ReadAndWriteRuns"]).Resource == "arn:aws:s3:::some-runs/runs/*"
    error_message = "Runs are in the bucket made here."
  }

  assert {
    condition     = output.launch_command == "AWS_REGION=eu-central-1 mrigan launch --role arn:aws:iam::111122223333:role/mrigan-sagemaker --image IMAGE --input-uri s3://their-slices/mri/slices --output-uri s3://some-runs/runs/first"
    error_message = "The launch command names the role and both buckets."
  }

  assert {
    condition = alltrue([
      one(one(aws_s3_bucket_server_side_encryption_configuration.runs.rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms",
      one(one(aws_s3_bucket_server_side_encryption_configuration.runs.rule).apply_server_side_encryption_by_default).kms_master_key_id == var.kms_key_arn,
      one(aws_s3_bucket_server_side_encryption_configuration.runs.rule).bucket_key_enabled,
      aws_ecr_repository.image.encryption_configuration[0].kms_key == var.kms_key_arn,
    ])
    error_message = "The key encrypts the bucket and the images."
  }

  assert {
    condition     = aws_iam_role.sagemaker.permissions_boundary == var.permissions_boundary && aws_iam_role.ec2[0].permissions_boundary == var.permissions_boundary
    error_message = "Roles are bounded."
  }
}

run "refuses_a_whole_bucket" {
  command = plan

  variables {
    input_prefix  = ""
    output_prefix = "runs/*"
    bucket        = "Patients.Of.Ward"
    kms_key_arn   = "alias/mri"
    account       = "1111"
    name          = "-"
    region        = "Frankfurt"
  }

  expect_failures = [
    var.input_prefix,
    var.output_prefix,
    var.bucket,
    var.kms_key_arn,
    var.account,
    var.name,
    var.region,
  ]
}
