-- Orthanc sends each CT series of a study to aiene when nothing came for it for StableAge seconds.
-- What aiene sends back (SEG, SR, RTSTRUCT) is no CT and goes nowhere, so nothing runs in circles.
function OnStableSeries(seriesId, tags, metadata)
  if tags['Modality'] ~= 'CT' then
    return
  end
  print('sending a CT series to aiene')
  -- one association for the series; not SendToModality, which takes single instances
  RestApiPost('/modalities/aiene/store', '{"Resources": ["' .. seriesId .. '"], "Asynchronous": true}')
end
