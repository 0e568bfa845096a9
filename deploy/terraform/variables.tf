variable "region" {
  description = "Region of everything made here; a training job and its buckets must share it."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is a name such as eu-central-1."
  }
}

variable "bucket" {
  description = "Name of the bucket to make, for runs and, unless input_bucket says otherwise, for slices. It tells nothing about patients: bucket names are public."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "bucket is 3 to 63 lower-case letters, digits and hyphens (no dots: TLS)."
  }
}

variable "account" {
  description = "12 digits of the account that this may be applied to; null takes whichever the credentials belong to."
  type        = string
  default     = null

  validation {
    condition     = var.account == null || can(regex("^[0-9]{12}$", var.account))
    error_message = "account is 12 digits."
  }
}

variable "name" {
  description = "Repository's name, and the beginning of the names of roles, policies and training jobs."
  type        = string
  default     = "mrigan"

  validation {
    condition     = can(regex("^[a-z0-9]+(-[a-z0-9]+)*$", var.name)) && length(var.name) <= 32
    error_message = "name is at most 32 lower-case letters, digits and single hyphens."
  }
}

variable "input_bucket" {
  description = "Existing bucket that holds the slices; null is the bucket made here."
  type        = string
  default     = null
}

variable "input_prefix" {
  description = "Folder of input_bucket that may be read, without slashes at its ends."
  type        = string
  default     = "slices"

  validation {
    condition     = can(regex("^[^/*?$]+(/[^/*?$]+)*$", var.input_prefix))
    error_message = "input_prefix is a folder such as slices or mri/slices: not empty, no slash at its ends, no wildcard."
  }
}

variable "output_prefix" {
  description = "Folder of the bucket that runs may be written to, without slashes at its ends."
  type        = string
  default     = "runs"

  validation {
    condition     = can(regex("^[^/*?$]+(/[^/*?$]+)*$", var.output_prefix))
    error_message = "output_prefix is a folder such as runs: not empty, no slash at its ends, no wildcard."
  }
}

variable "kms_key_arn" {
  description = "KMS key that encrypts the bucket and the images; null is S3's and ECR's own AES-256."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "kms_key_arn is a key's ARN (arn:aws:kms:REGION:ACCOUNT:key/ID), not an alias."
  }
}

variable "vpc" {
  description = "Whether jobs run in your VPC: allows the execution role to attach to its network."
  type        = bool
  default     = false
}

variable "ec2" {
  description = "Whether to make the instance profile for training on EC2 (deploy/ec2)."
  type        = bool
  default     = false
}

variable "noncurrent_days" {
  description = "Days that deleted and overwritten objects can still be restored; they are paid for. Retired checkpoints are among them."
  type        = number
  default     = 7

  validation {
    condition     = var.noncurrent_days >= 1 && floor(var.noncurrent_days) == var.noncurrent_days
    error_message = "noncurrent_days is a whole number of at least 1."
  }
}

variable "images_kept" {
  description = "Newest images that the repository keeps (about 3.5 GB each, compressed, most of it shared)."
  type        = number
  default     = 10

  validation {
    condition     = var.images_kept >= 1 && floor(var.images_kept) == var.images_kept
    error_message = "images_kept is a whole number of at least 1."
  }
}

variable "permissions_boundary" {
  description = "ARN of the policy that bounds the roles, where an account asks for one."
  type        = string
  default     = null
}

variable "tags" {
  description = "Further tags of everything. Never a patient's or a study's name: tags are shown in bills."
  type        = map(string)
  default     = {}
}
