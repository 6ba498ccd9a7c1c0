// A cohort in parts, one job each, then one table:
//   nextflow run integrations/nextflow/main.nf --input cts --out OUT --parts 4
// Every part writes into the same folder; a part that failed is taken up where it stopped. Research only.
nextflow.enable.dsl = 2

params.parts = 4

process part {
    cpus 4
    memory '6 GB'

    input:
    val number

    output:
    val number

    script:
    """
    aiene run ${file(params.input)} -o ${file(params.out)} --num-parts ${params.parts} --part-id ${number} --jobs ${task.cpus}
    """
}

process export {
    input:
    val parts

    script:
    """
    aiene export ${file(params.out)} --to dicom-seg,dicom-sr,rtstruct
    """
}

workflow {
    done = part(Channel.of(0..<params.parts)).collect()
    export(done)
}
