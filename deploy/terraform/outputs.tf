output "role_arn" {
  description = "Execution role of training jobs: mrigan launch --role."
  value       = aws_iam_role.sagemaker.arn
}

output "repository_url" {
  description = "Where deploy/build_and_push.sh pushes."
  value       = aws_ecr_repository.image.repository_url
}

output "bucket" {
  description = "Bucket of the runs."
  value       = aws_s3_bucket.runs.bucket
}

output "launcher_policy_arn" {
  description = "Policy for whoever launches jobs."
  value       = aws_iam_policy.launcher.arn
}

output "push_policy_arn" {
  description = "Policy for whoever pushes images."
  value       = aws_iam_policy.push.arn
}

output "key_policy_arn" {
  description = "Policy that whoever fetches runs needs as well; null without kms_key_arn."
  value       = one(aws_iam_policy.key[*].arn)
}

output "instance_profile" {
  description = "Instance profile for EC2; null unless ec2 is true."
  value       = one(aws_iam_instance_profile.ec2[*].name)
}

output "push_command" {
  description = "Builds the image and pushes it; its last line is the image's URI."
  value       = "deploy/build_and_push.sh ${aws_ecr_repository.image.repository_url}"
}

output "launch_command" {
  description = "A job: replace IMAGE with the last line of push_command."
  value = join(" ", concat(
    ["AWS_REGION=${var.region} mrigan launch"],
    # The launcher's policy allows jobs of this name only.
    var.name == "mrigan" ? [] : ["--base-name ${var.name}"],
    [
      "--role ${aws_iam_role.sagemaker.arn}",
      "--image IMAGE",
      "--input-uri s3://${coalesce(var.input_bucket, var.bucket)}/${var.input_prefix}",
      "--output-uri s3://${var.bucket}/${var.output_prefix}/first",
    ],
  ))
}
